"""The vocabulary of a target: frozen, and the same for the scheme, the linter, the lowering and the cost model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.predicate import Predicate
from bitwright.hw_constraints.quantity import Quantity
from bitwright.quant.errors import InputError
from bitwright.quant.formats import NumberFormat
from bitwright.quant.scheme import BiasKind, QParamsSpec, QuantScheme


class Capability(StrEnum):
    """What a target's file says enough for."""

    SCHEME = "scheme"
    LINT = "lint"
    LOWER = "lower"
    COST = "cost"


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
class Source:
    """Where statements were read."""

    title: str
    url: str | None = None

    def __str__(self) -> str:
        return f"{self.title} ({self.url})" if self.url else self.title


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of the hardware, where it was read, and whether that was checked."""

    quantity: Quantity
    source: Source
    verified: bool


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A unit that computes; `figures` by name (`macs`, `clock`, `int8_dense`, `power`)."""

    name: str
    kind: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory; `figures` by name (`size`, `bandwidth`, `read_latency`, `write_latency`)."""

    name: str
    figures: Mapping[str, Figure]


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
class OperatorSupport:
    """What the target does with each operator type; `codes_only` and `fused_patterns` as in `QuantScheme`."""

    quantized: frozenset[str]
    shared_qparams: frozenset[str]
    fused_patterns: tuple[tuple[str, ...], ...]
    codes_only: frozenset[str]
    decomposed: Mapping[str, Decomposition]
    refused: frozenset[str]
    others: Otherwise
    source: Source
    verified: bool


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Whether the toolchain takes open dimensions."""

    dynamic: DynamicShapes
    source: Source
    verified: bool


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What the target's own toolchain reads: the exporter's name, its ONNX opset, and the runtimes that load it."""

    format: str
    opset: int | None
    runtimes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class UnverifiedField:
    """A statement of a target file that was taken on trust."""

    path: str
    value: str
    source: Source

    def __str__(self) -> str:
        return f"{self.path} = {self.value} (not verified; {self.source})"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One accelerator with its toolchain. See the classes of the fields."""

    id: str
    version: int
    description: str
    file: str
    extends: str | None
    capabilities: frozenset[Capability]
    artifact: Artifact
    engines: Mapping[str, Engine]
    memories: Mapping[str, Memory]
    numerics: Numerics
    operators: OperatorSupport
    shapes: Shapes
    constraints: tuple[Constraint, ...]

    def require(self, capability: Capability) -> None:
        """Stops where the file does not say enough.

        Raises:
            InputError: the target does not serve `capability`.
        """
        if capability not in self.capabilities:
            serves = ", ".join(sorted(self.capabilities))
            raise InputError(f"target {self.id!r} does not serve {capability}; its file says enough for: {serves}")

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

    def unverified(self) -> tuple[UnverifiedField, ...]:
        """Every statement that nobody has checked; reports that lean on one name it."""
        return tuple(self._unverified())

    def _unverified(self) -> Iterator[UnverifiedField]:
        for kind, owners in (("engines", self.engines), ("memories", self.memories)):
            for owner in owners.values():
                for name, figure in owner.figures.items():
                    if not figure.verified:
                        path = f"{kind}.{owner.name}.{name}"
                        yield UnverifiedField(path=path, value=figure.quantity.text, source=figure.source)
        if not self.numerics.verified:
            formats = f"{self.numerics.activations[0].format.name} x {self.numerics.weights[0].format.name}"
            yield UnverifiedField(path="numerics", value=formats, source=self.numerics.source)
        if not self.operators.verified:
            count = f"{len(self.operators.quantized)} operators in low precision"
            yield UnverifiedField(path="operators", value=count, source=self.operators.source)
        for op, decomposition in self.operators.decomposed.items():
            if not decomposition.verified:
                path, parts = f"operators.decomposed.{op}", ", ".join(decomposition.parts)
                yield UnverifiedField(path=path, value=parts, source=decomposition.source)
        if not self.shapes.verified:
            yield UnverifiedField(path="shapes.dynamic", value=self.shapes.dynamic, source=self.shapes.source)
        for constraint in self.constraints:
            if not constraint.verified:
                path = f"constraints.{constraint.name}"
                yield UnverifiedField(path=path, value=constraint.require.text, source=constraint.source)
