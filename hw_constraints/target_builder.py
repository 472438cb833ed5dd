"""Turns a target file that passed its schema into the frozen `Target`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitwright.hw_constraints.target_data import Layout, Link, Reformat
from bitwright.hw_constraints.target_fields import FigureFile
from bitwright.hw_constraints.target_hardware import (
    Array,
    CostModel,
    Engine,
    Memory,
    MemoryUse,
    Ports,
    Sparsity,
)
from bitwright.hw_constraints.target_numerics import (
    Constraint,
    Decomposition,
    Numerics,
    OperatorSupport,
    Shapes,
    TableLookups,
)
from bitwright.hw_constraints.target_schema import TargetFile
from bitwright.hw_constraints.target_schema_hardware import ArrayFile, EngineFile, MemoryFile
from bitwright.hw_constraints.target_schema_numerics import SpecFile
from bitwright.hw_constraints.target_source import Figure, Source
from bitwright.hw_constraints.target_types import Artifact, Target
from bitwright.quant.formats import FORMATS
from bitwright.quant.scheme import QParamsSpec


def build(checked: TargetFile, file: str) -> Target:
    """The target that a checked file describes; `file` is named in messages."""
    return _Builder(checked).build(file)


class _Builder:
    def __init__(self, checked: TargetFile) -> None:
        self.checked = checked
        self.sources = {name: Source(title=each.title, url=each.url) for name, each in checked.sources.items()}

    def build(self, file: str) -> Target:
        checked = self.checked
        return Target(
            id=checked.id,
            version=checked.version,
            description=" ".join(checked.description.split()),
            file=file,
            extends=checked.extends,
            capabilities=frozenset(checked.capabilities),
            missing={name: " ".join(text.split()) for name, text in checked.missing.items()},
            artifact=Artifact(**dict(checked.artifact)),
            engines={name: self._engine(name, each) for name, each in checked.engines.items()},
            memories={name: self._memory(name, each) for name, each in checked.memories.items()},
            links=self._links(),
            layouts=self._layouts(),
            reformats=self._reformats(),
            sparsity=self._sparsity(),
            cost=self._cost(),
            numerics=self._numerics(),
            operators=self._operators(),
            shapes=Shapes(dynamic=checked.shapes.dynamic, **self._sourced(checked.shapes)),
            constraints=self._constraints(),
        )

    def _sourced(self, given: Any) -> dict[str, Any]:
        return {"source": self.sources[given.source], "verified": given.verified}

    def _figures(self, given: Mapping[str, FigureFile | None]) -> dict[str, Figure]:
        return {
            name: Figure(quantity=each.value, **self._sourced(each)) for name, each in given.items() if each is not None
        }

    def _engine(self, name: str, given: EngineFile) -> Engine:
        figures: dict[str, FigureFile | None] = {"macs": given.macs, "clock": given.clock}
        for fmt, rates in given.rates.items():
            figures |= {f"{fmt}_dense": rates.dense, f"{fmt}_sparse": rates.sparse}
        figures |= {f"{what}_elements": each for what, each in given.elements.items()}
        figures["power"] = given.power
        figures |= {f"{fmt}_energy": each for fmt, each in given.energy.items()}
        return Engine(
            name=name,
            kind=given.kind,
            count=given.count,
            runs=given.runs,
            operators=given.operators,
            formats=given.formats,
            reads=given.reads,
            writes=given.writes,
            array=self._array(given.array) if given.array else None,
            figures=self._figures(figures),
        )

    def _array(self, given: ArrayFile) -> Array:
        return Array(dataflow=given.dataflow, unroll=given.unroll, unroll_for=given.unroll_for, **self._sourced(given))

    def _memory(self, name: str, given: MemoryFile) -> Memory:
        figures: dict[str, FigureFile | None] = {"size": given.size, "bandwidth": given.bandwidth}
        figures |= {f"{operand}_bandwidth": each for operand, each in given.operand_bandwidth.items()}
        figures |= {"read_latency": given.read_latency, "write_latency": given.write_latency}
        figures |= {"burst": given.burst, "clock": given.clock, "energy": given.energy}
        use, ports = given.use, given.ports
        return Memory(
            name=name,
            kind=given.kind,
            use=None if use is None else MemoryUse(**{**dict(use), **self._sourced(use)}),
            ports=None if ports is None else Ports(**{**dict(ports), **self._sourced(ports)}),
            figures=self._figures(figures),
        )

    def _links(self) -> dict[str, Link]:
        return {
            name: Link(
                name=name,
                start=each.start,
                end=each.end,
                both_ways=each.both_ways,
                figures=self._figures({"bandwidth": each.bandwidth, "latency": each.latency}),
                **self._sourced(each),
            )
            for name, each in self.checked.links.items()
        }

    def _layouts(self) -> dict[str, Layout]:
        return {
            name: Layout(
                name=name,
                channel_multiple=each.channel_multiple,
                alignment_bytes=each.alignment,
                default=each.default,
                **self._sourced(each),
            )
            for name, each in self.checked.layouts.items()
        }

    def _reformats(self) -> dict[str, Reformat]:
        return {
            name: Reformat(
                name=name,
                start=each.start,
                end=each.end,
                on_the_fly=each.on_the_fly,
                engine=each.engine,
                **self._sourced(each),
            )
            for name, each in self.checked.reformats.items()
        }

    def _sparsity(self) -> tuple[Sparsity, ...]:
        found = []
        for pattern, each in self.checked.sparsity.items():
            kept, group = map(int, pattern.split(":"))
            operators = frozenset(each.operators)
            found.append(
                Sparsity(kept=kept, group=group, formats=each.formats, operators=operators, **self._sourced(each))
            )
        return tuple(found)

    def _cost(self) -> CostModel | None:
        given = self.checked.cost
        return None if given is None else CostModel(kind=given.model, figures=self._figures(given.figures))

    def _numerics(self) -> Numerics:
        given = self.checked.numerics
        return Numerics(
            activations=tuple(map(_spec, given.activations)),
            weights=tuple(map(_spec, given.weights)),
            operator_weights={op: tuple(map(_spec, specs)) for op, specs in given.operator_weights.items()},
            bias=given.bias,
            float_formats=tuple(FORMATS[name] for name in given.float_formats),
            quantize_outputs=given.quantize_outputs,
            **self._sourced(given),
        )

    def _operators(self) -> OperatorSupport:
        given = self.checked.operators
        apart, tables = given.decomposed, given.table_lookups
        return OperatorSupport(
            quantized=frozenset(given.quantized),
            shared_qparams=frozenset(given.shared_qparams),
            codes_only=frozenset(given.codes_only),
            fused_patterns=tuple(dict.fromkeys(chain for chains in given.fused_patterns for chain in chains)),
            table_lookups=TableLookups(of=frozenset(tables.of), **self._sourced(tables)) if tables else None,
            decomposed={op: Decomposition(parts=parts, **self._sourced(apart)) for op, parts in apart.into.items()}
            if apart
            else {},
            refused=frozenset(given.refused),
            single_partition=given.single_partition,
            others=given.others,
            **self._sourced(given),
        )

    def _constraints(self) -> tuple[Constraint, ...]:
        return tuple(
            Constraint(
                name=name,
                operators=frozenset(each.operators),
                require=each.require,
                because=each.because,
                suggestion=each.suggestion,
                severity=each.severity,
                **self._sourced(each),
            )
            for name, each in self.checked.constraints.items()
        )


def _spec(given: SpecFile) -> QParamsSpec:
    return QParamsSpec(
        format=FORMATS[given.format],
        symmetric=given.symmetric,
        granularity=given.granularity,
        block_size=given.block_size,
        narrow_range=given.narrow_range,
        scale_kind=given.scale_kind,
        dynamic=given.dynamic,
        observer=given.observer,
        observer_arguments=dict(given.observer_arguments),
    )
