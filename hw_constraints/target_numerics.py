"""The arithmetic that a target describes: formats, what becomes of each operator, and limits on its calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.predicate import Predicate
from bitwright.hw_constraints.target_source import Source
from bitwright.quant.formats import NumberFormat
from bitwright.quant.scheme import BiasKind, QParamsSpec


class Otherwise(StrEnum):
    """What becomes of an operator that is neither quantized nor moves codes."""

    FLOAT = "float"  # the accelerator runs it in floating point
    HOST = "host"  # a processor beside the accelerator runs it
    REFUSED = "refused"  # the toolchain stops


class DynamicShapes(StrEnum):
    """Which dimensions may be left open until the network runs."""

    NONE = "none"
    BATCH = "batch"  # the first one of each input
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """What must hold for every call of some operators.

    Attributes:
        name: unique in the target.
        operators: the operator types it speaks about.
        require: the condition, which prints as it was written.
        because: what happens otherwise.
        suggestion: what to write instead.
        severity: how much it matters.
        source: where it was read.
        verified: whether it was checked there.
    """

    name: str
    operators: frozenset[str]
    require: Predicate
    because: str
    suggestion: str
    severity: Severity
    source: Source
    verified: bool


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """The permitted formats; the first of each tuple is the default."""

    activations: tuple[QParamsSpec, ...]
    weights: tuple[QParamsSpec, ...]
    operator_weights: Mapping[str, tuple[QParamsSpec, ...]]
    bias: BiasKind
    float_formats: tuple[NumberFormat, ...]
    quantize_outputs: bool
    source: Source
    verified: bool

    def weights_of(self, op: str) -> tuple[QParamsSpec, ...]:
        """The permitted weights of one operator type."""
        return self.operator_weights.get(op, self.weights)


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """An operator that the toolchain writes as several others, each with its own format."""

    parts: tuple[str, ...]
    source: Source
    verified: bool


@dataclass(frozen=True, kw_only=True)
class TableLookups:
    """Functions of one element that the operator before them looks up as it writes its result.

    They take no pass of their own. Unlike in a fused pattern, what is looked up are codes, with a scale of their own.
    """

    of: frozenset[str]
    source: Source
    verified: bool


@dataclass(frozen=True, kw_only=True)
class OperatorSupport:
    """What the target does with each operator type; `codes_only` and `fused_patterns` as in `QuantScheme`.

    With `single_partition` everything behind the first operator on the host runs on the host, too.
    """

    quantized: frozenset[str]
    shared_qparams: frozenset[str]
    fused_patterns: tuple[tuple[str, ...], ...]
    codes_only: frozenset[str]
    table_lookups: TableLookups | None = None
    decomposed: Mapping[str, Decomposition]
    refused: frozenset[str]
    others: Otherwise
    single_partition: bool = False
    source: Source
    verified: bool


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Whether the toolchain takes open dimensions."""

    dynamic: DynamicShapes
    source: Source
    verified: bool
