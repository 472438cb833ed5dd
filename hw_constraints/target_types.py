"""A target: frozen, and the same for the scheme, the linter, the lowering and the cost model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bitwright.hw_constraints.target_data import Layout, Link, Reformat
from bitwright.hw_constraints.target_hardware import CostModel, Engine, Memory, Sparsity
from bitwright.hw_constraints.target_numerics import (
    Constraint,
    Decomposition,
    DynamicShapes,
    Numerics,
    OperatorSupport,
    Otherwise,
    Shapes,
)
from bitwright.hw_constraints.target_source import Figure, Source, UnverifiedField
from bitwright.quant.errors import InputError
from bitwright.quant.scheme import QParamsSpec, QuantScheme

__all__ = [
    "Artifact",
    "Capability",
    "Constraint",
    "Decomposition",
    "DynamicShapes",
    "Figure",
    "Numerics",
    "OperatorSupport",
    "Otherwise",
    "Shapes",
    "Source",
    "Target",
    "UnverifiedField",
]


class Capability(StrEnum):
    """What a target's file says enough for."""

    SCHEME = "scheme"
    LINT = "lint"
    LOWER = "lower"
    COST = "cost"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What the target's own toolchain reads: the exporter's name, its ONNX opset, and the runtimes that load it."""

    format: str
    opset: int | None
    runtimes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One accelerator with its toolchain. See the classes of the fields.

    `missing` says for a capability that is not served which figures are not public.
    """

    id: str
    version: int
    description: str
    file: str
    extends: str | None
    capabilities: frozenset[Capability]
    missing: Mapping[Capability, str] = field(default_factory=dict)
    artifact: Artifact
    engines: Mapping[str, Engine]
    memories: Mapping[str, Memory]
    links: Mapping[str, Link] = field(default_factory=dict)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    reformats: Mapping[str, Reformat] = field(default_factory=dict)
    sparsity: tuple[Sparsity, ...] = ()
    cost: CostModel | None = None
    numerics: Numerics
    operators: OperatorSupport
    shapes: Shapes
    constraints: tuple[Constraint, ...]

    def require(self, capability: Capability) -> None:
        """Stops where the file does not say enough.

        Raises:
            InputError: the target does not serve `capability`; the figures that are not public are named.
        """
        if capability not in self.capabilities:
            serves = ", ".join(sorted(self.capabilities))
            why = self.missing.get(capability)
            raise InputError(
                f"target {self.id!r} does not serve {capability}{f': {why}' if why else ''}; "
                f"its file says enough for: {serves}"
            )

    def scheme(self, *, activations: str | None = None, weights: str | None = None) -> QuantScheme:
        """What the accelerator computes in low precision, and how.

        Args:
            activations: the name of a permitted format other than the default (`int16`).
            weights: likewise.

        Raises:
            InputError: the format is not permitted; those that are get listed.
        """
        self.require(Capability.SCHEME)
        numerics, operators = self.numerics, self.operators
        return QuantScheme(
            name=self.id,
            activations=self._choose("activations", numerics.activations, activations),
            weights=self._choose("weights", numerics.weights, weights),
            operator_weights={op: specs[0] for op, specs in numerics.operator_weights.items()},
            bias=numerics.bias,
            quantized_operators=operators.quantized,
            shared_qparams_operators=operators.shared_qparams,
            fused_patterns=operators.fused_patterns,
            quantize_outputs=numerics.quantize_outputs,
            codes_only_operators=operators.codes_only,
        )

    def _choose(self, what: str, permitted: tuple[QParamsSpec, ...], name: str | None) -> QParamsSpec:
        for spec in permitted:
            if name in (None, spec.format.name):
                return spec
        accepted = ", ".join(spec.format.name for spec in permitted)
        raise InputError(f"{what} = {name!r}; target {self.id!r} accepts {accepted}")

    def constraints_on(self, op: str) -> tuple[Constraint, ...]:
        """The constraints on one operator type."""
        return tuple(each for each in self.constraints if op in each.operators)

    @property
    def default_layout(self) -> Layout | None:
        """The layout of tensors where nothing else was decided; None where nothing was said."""
        return next((layout for layout in self.layouts.values() if layout.default), None)

    def unverified(self) -> tuple[UnverifiedField, ...]:
        """Every statement that nobody has checked; reports that lean on one name it."""
        return tuple(
            UnverifiedField(path=path, value=value, source=source)
            for path, value, source, verified in self.statements()
            if not verified
        )

    def leaned_on(self, ops: Collection[str]) -> tuple[UnverifiedField, ...]:
        """The unverified statements that what is said about a network with these operator types rests on."""
        constraints = {f"constraints.{each.name}" for op in ops for each in self.constraints_on(op)}
        taken_apart = {f"operators.decomposed.{op}" for op in ops}
        found = []
        for each in self.unverified():
            section = each.path.partition(".")[0]
            if section == "sparsity":  # weights are dense
                continue
            if section == "constraints" and each.path not in constraints:
                continue
            if each.path.startswith("operators.decomposed.") and each.path not in taken_apart:
                continue
            found.append(each)
        return tuple(found)

    def statements(self) -> Iterator[tuple[str, str, Source, bool]]:
        """Everything that the file says with a source: its path, what it says, where it was read, whether checked."""
        yield from self._hardware_statements()
        numerics, operators, shapes = self.numerics, self.operators, self.shapes
        formats = f"{numerics.activations[0].format.name} x {numerics.weights[0].format.name}"
        yield "numerics", formats, numerics.source, numerics.verified
        count = f"{len(operators.quantized)} operators in low precision"
        yield "operators", count, operators.source, operators.verified
        for op, each in operators.decomposed.items():
            yield f"operators.decomposed.{op}", ", ".join(each.parts), each.source, each.verified
        if tables := operators.table_lookups:
            yield "operators.table_lookups", ", ".join(sorted(tables.of)), tables.source, tables.verified
        yield "shapes.dynamic", shapes.dynamic, shapes.source, shapes.verified
        for constraint in self.constraints:
            path = f"constraints.{constraint.name}"
            yield path, constraint.require.text, constraint.source, constraint.verified

    def _hardware_statements(self) -> Iterator[tuple[str, str, Source, bool]]:
        for engine in self.engines.values():
            yield from _figures(f"engines.{engine.name}", engine.figures)
            if engine.array:
                yield f"engines.{engine.name}.array", str(engine.array), engine.array.source, engine.array.verified
        for memory in self.memories.values():
            yield from _figures(f"memories.{memory.name}", memory.figures)
            if memory.ports:
                yield f"memories.{memory.name}.ports", str(memory.ports), memory.ports.source, memory.ports.verified
            if memory.use:
                yield f"memories.{memory.name}.use", str(memory.use), memory.use.source, memory.use.verified
        for link in self.links.values():
            yield from _figures(f"links.{link.name}", link.figures)
            yield f"links.{link.name}", str(link), link.source, link.verified
        for layout in self.layouts.values():
            yield f"layouts.{layout.name}", str(layout), layout.source, layout.verified
        for reformat in self.reformats.values():
            yield f"reformats.{reformat.name}", str(reformat), reformat.source, reformat.verified
        for sparsity in self.sparsity:
            yield f"sparsity.{sparsity}", f"in {', '.join(sparsity.formats)}", sparsity.source, sparsity.verified
        if self.cost:
            yield from _figures("cost.figures", self.cost.figures)


def _figures(owner: str, figures: Mapping[str, Figure]) -> Iterator[tuple[str, str, Source, bool]]:
    for name, figure in figures.items():
        yield f"{owner}.{name}", str(figure), figure.source, figure.verified
