"""A target: everything Bitwright knows about one accelerator, read from one declarative file.

The quantization scheme, the linter, the lowering and the cost model all read the same frozen `Target`. Loading one
imports no tensor library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.hw_constraints import target_files
from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.target_schema import ConstraintFile, SpecFile, TargetFile
from bitwright.hw_constraints.target_types import (
    Artifact,
    Capability,
    Constraint,
    Decomposition,
    DynamicShapes,
    Engine,
    Figure,
    Memory,
    Numerics,
    OperatorSupport,
    Otherwise,
    Shapes,
    Source,
    Target,
)
from bitwright.quant.errors import InputError
from bitwright.quant.formats import FORMATS
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, ScaleKind
from bitwright.quant.yaml_lines import Locations, dotted, validate

__all__ = ["Capability", "Target", "list_targets", "load_target"]


def list_targets() -> tuple[str, ...]:
    """The names that `load_target` knows; imports nothing that they name."""
    return target_files.target_names()


def load_target(name_or_path: str | Path) -> Target:
    """Loads a target by its name, or from the user's own YAML file.

    Raises:
        InputError: unknown name (the choices are listed), or a mistake in the file with its line.
    """
    path = target_files.find(name_or_path)
    data, locations = target_files.read(path)
    checked = validate(TargetFile, data, locations)
    if path.parent == target_files.FOLDER and checked.id != path.stem:
        raise InputError(f"{locations.where(('id',))}: id = {checked.id!r}; the file is called {path.stem!r}")
    _check_sources(data, (), checked, locations)
    return _Builder(checked).build(str(path))


def _check_sources(value: Any, path: tuple[str | int, ...], checked: TargetFile, locations: Locations) -> None:
    """Every `source` names an entry of `sources`."""
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key == "source" and item not in checked.sources:
            known = ", ".join(checked.sources)
            where = locations.where((*path, key))
            raise InputError(f"{where}: {dotted((*path, key))} = {item!r}; sources has {known}")
        _check_sources(item, (*path, key), checked, locations)


class _Builder:
    """Turns a checked file into the frozen target."""

    def __init__(self, checked: TargetFile) -> None:
        self.checked = checked
        self.sources = {name: Source(title=each.title, url=each.url) for name, each in checked.sources.items()}

    def build(self, file: str) -> Target:
        checked = self.checked
        engines = {
            name: Engine(
                name=name,
                kind=each.kind,
                figures=self._figures({"macs": each.macs, "clock": each.clock, **each.rates, "power": each.power}),
            )
            for name, each in checked.engines.items()
        }
        memories = {
            name: Memory(name=name, figures=self._figures(dict(each))) for name, each in checked.memories.items()
        }
        return Target(
            id=checked.id,
            version=checked.version,
            description=" ".join(checked.description.split()),
            file=file,
            extends=checked.extends,
            capabilities=frozenset(Capability(name) for name in checked.capabilities),
            artifact=Artifact(**dict(checked.artifact)),
            engines=engines,
            memories=memories,
            numerics=self._numerics(),
            operators=self._operators(),
            shapes=Shapes(
                dynamic=DynamicShapes(checked.shapes.dynamic),
                source=self.sources[checked.shapes.source],
                verified=checked.shapes.verified,
            ),
            constraints=tuple(self._constraint(name, each) for name, each in checked.constraints.items()),
        )

    def _figures(self, given: Mapping[str, Any]) -> Mapping[str, Figure]:
        return {
            name: Figure(quantity=each.value, source=self.sources[each.source], verified=each.verified)
            for name, each in given.items()
            if each is not None
        }

    def _numerics(self) -> Numerics:
        given = self.checked.numerics
        return Numerics(
            activations=tuple(map(_spec, given.activations)),
            weights=tuple(map(_spec, given.weights)),
            operator_weights={op: tuple(map(_spec, specs)) for op, specs in given.operator_weights.items()},
            bias=BiasKind(given.bias),
            float_formats=tuple(FORMATS[name] for name in given.float_formats),
            quantize_outputs=given.quantize_outputs,
            source=self.sources[given.source],
            verified=given.verified,
        )

    def _operators(self) -> OperatorSupport:
        given = self.checked.operators
        return OperatorSupport(
            quantized=frozenset(given.quantized),
            shared_qparams=frozenset(given.shared_qparams),
            codes_only=frozenset(given.codes_only),
            fused_patterns=tuple(dict.fromkeys(chain for chains in given.fused_patterns for chain in chains)),
            decomposed=self._decomposed(),
            refused=frozenset(given.refused),
            others=Otherwise(given.others),
            source=self.sources[given.source],
            verified=given.verified,
        )

    def _decomposed(self) -> dict[str, Decomposition]:
        given = self.checked.operators.decomposed
        if given is None:
            return {}
        source = self.sources[given.source]
        return {
            op: Decomposition(parts=parts, source=source, verified=given.verified) for op, parts in given.into.items()
        }

    def _constraint(self, name: str, given: ConstraintFile) -> Constraint:
        return Constraint(
            name=name,
            operators=frozenset(given.operators),
            require=given.require,
            because=given.because,
            suggestion=given.suggestion,
            severity=Severity(given.severity),
            source=self.sources[given.source],
            verified=given.verified,
        )


def _spec(given: SpecFile) -> QParamsSpec:
    return QParamsSpec(
        format=FORMATS[given.format],
        symmetric=given.symmetric,
        granularity=Granularity(given.granularity),
        narrow_range=given.narrow_range,
        scale_kind=ScaleKind(given.scale_kind),
        observer=given.observer,
        observer_arguments=dict(given.observer_arguments),
    )
