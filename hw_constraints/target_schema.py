"""How a target file is written: the pydantic models that check it.

Only the border: `target.py` turns what passes here into the frozen `Target` that everything else reads.
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    model_validator,
)

from bitwright.hw_constraints.operators import OPERATORS, properties_of
from bitwright.hw_constraints.predicate import Predicate
from bitwright.hw_constraints.quantity import Dimension, Quantity, parse_quantity
from bitwright.quant.errors import suggestion
from bitwright.quant.formats import FORMATS


def _known_operator(name: str) -> str:
    if name not in OPERATORS:
        raise ValueError(f"no such operator type{suggestion(name, OPERATORS)}")
    return name


def _known_format(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"accepts {', '.join(FORMATS)}{suggestion(name, FORMATS)}")
    return name


def _parsed_predicate(text: Any) -> Predicate:
    if not isinstance(text, str):
        raise ValueError("expected a condition such as kernel_h <= 32")
    return Predicate.parse(text)


def _expanded_pattern(text: Any) -> tuple[tuple[str, ...], ...]:
    """`conv1d|conv2d -> relu` stands for the chains (conv1d, relu) and (conv2d, relu)."""
    if not isinstance(text, str) or "->" not in text:
        raise ValueError("expected a chain such as conv2d -> batch_norm -> relu")
    steps = [[_known_operator(name.strip()) for name in step.split("|")] for step in text.split("->")]
    return tuple(product(*steps))


def _quantity_of(dimension: Dimension) -> BeforeValidator:
    def parse(value: Any) -> Quantity:
        if not isinstance(value, str):
            raise ValueError(f"the unit is missing; write for example '{value} {dimension.value}'")
        return parse_quantity(value, dimension)

    return BeforeValidator(parse)


OperatorName = Annotated[str, AfterValidator(_known_operator)]
FormatName = Annotated[str, AfterValidator(_known_format)]
Chains = Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_expanded_pattern)]
Condition = Annotated[Predicate, BeforeValidator(_parsed_predicate)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class SourceFile(_Strict):
    """Where a statement was read."""

    title: str = Field(min_length=1)
    url: str | None = None


class _Sourced(_Strict):
    """Something that names its source.

    Attributes:
        source: a key of the file's `sources`.
        verified: whether it was read there or measured, rather than taken on trust.
    """

    source: str
    verified: StrictBool


class SizeFile(_Sourced):
    """A size in bytes."""

    value: Annotated[Quantity, _quantity_of(Dimension.SIZE)]


class BandwidthFile(_Sourced):
    """Bytes per second."""

    value: Annotated[Quantity, _quantity_of(Dimension.BANDWIDTH)]


class FrequencyFile(_Sourced):
    """A clock."""

    value: Annotated[Quantity, _quantity_of(Dimension.FREQUENCY)]


class MacsFile(_Sourced):
    """Multiply-accumulates per cycle."""

    value: Annotated[Quantity, _quantity_of(Dimension.MACS_PER_CYCLE)]


class RateFile(_Sourced):
    """Operations per second; a multiply-accumulate is two."""

    value: Annotated[Quantity, _quantity_of(Dimension.OPERATIONS_RATE)]


class PowerFile(_Sourced):
    """Watts."""

    value: Annotated[Quantity, _quantity_of(Dimension.POWER)]


class CyclesFile(_Sourced):
    """A latency in cycles of the engine's clock."""

    value: Annotated[Quantity, _quantity_of(Dimension.CYCLES)]


class EngineFile(_Strict):
    """A unit that computes; `rates` is keyed by what is counted (`int8_dense`)."""

    kind: Literal["mac_array", "tensor_core", "vector", "cpu"]
    macs: MacsFile | None = None
    clock: FrequencyFile | None = None
    rates: dict[str, RateFile] = Field(default_factory=dict)
    power: PowerFile | None = None


class MemoryFile(_Strict):
    """A memory that an engine reaches."""

    size: SizeFile | None = None
    bandwidth: BandwidthFile | None = None
    read_latency: CyclesFile | None = None
    write_latency: CyclesFile | None = None


class SpecFile(_Strict):
    """One permitted way to keep a tensor."""

    format: FormatName
    symmetric: StrictBool
    granularity: Literal["per_tensor", "per_channel"] = "per_tensor"
    narrow_range: StrictBool = False
    scale_kind: Literal["float32", "power_of_two"] = "float32"
    observer: str = "min_max"
    observer_arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _float_formats_are_symmetric(self) -> SpecFile:
        if FORMATS[self.format].name.startswith(("float", "bfloat")) and not self.symmetric:
            raise ValueError(f"{self.format} has no zero point: symmetric must be true")
        return self


class NumericsFile(_Sourced):
    """Which formats are permitted; the first of each list is the default."""

    activations: tuple[SpecFile, ...] = Field(min_length=1)
    weights: tuple[SpecFile, ...] = Field(min_length=1)
    operator_weights: dict[OperatorName, tuple[SpecFile, ...]] = Field(default_factory=dict)
    bias: Literal["int32", "float32"]
    float_formats: tuple[FormatName, ...] = ()
    quantize_outputs: StrictBool = False

    @model_validator(mode="after")
    def _activations_are_per_tensor(self) -> NumericsFile:
        if any(spec.granularity != "per_tensor" for spec in self.activations):
            raise ValueError("activations are kept per_tensor")
        return self


class DecomposedFile(_Sourced):
    """Operators that the toolchain writes as several of its own."""

    into: dict[OperatorName, tuple[OperatorName, ...]] = Field(min_length=1)


class OperatorsFile(_Sourced):
    """Which operators run in low precision, which only move codes, and what happens to all others."""

    quantized: tuple[OperatorName, ...] = Field(min_length=1)
    shared_qparams: tuple[OperatorName, ...] = ()
    fused_patterns: tuple[Chains, ...] = ()
    decomposed: DecomposedFile | None = None
    codes_only: tuple[OperatorName, ...] = ()
    refused: tuple[OperatorName, ...] = ()
    others: Literal["float", "host", "refused"]

    @model_validator(mode="after")
    def _each_operator_once(self) -> OperatorsFile:
        taken_apart = self.decomposed.into if self.decomposed else {}
        lists = {
            "quantized": self.quantized,
            "shared_qparams": self.shared_qparams,
            "decomposed": taken_apart,
            "refused": self.refused,
        }
        seen: dict[str, str] = {}
        for key, names in lists.items():
            for name in names:
                if name in seen:
                    raise ValueError(f"operator {name!r} stands in {seen[name]} and again in {key}")
                seen[name] = key
        for name in self.codes_only:
            if name not in self.quantized:
                raise ValueError(f"codes_only has {name!r}, which is not quantized")
        runs = {*self.quantized, *self.shared_qparams}
        for name, parts in taken_apart.items():
            for part in parts:
                if part not in runs:
                    raise ValueError(
                        f"decomposed {name!r} has the part {part!r}, which is not quantized or shared_qparams"
                    )
        return self


class ConstraintFile(_Sourced):
    """What must hold for every call of some operators."""

    operators: tuple[OperatorName, ...] = Field(min_length=1)
    require: Condition
    because: str
    suggestion: str
    severity: Literal["error", "warning"] = "error"

    @model_validator(mode="after")
    def _names_are_properties(self) -> ConstraintFile:
        for op in self.operators:
            for name in sorted(self.require.names - properties_of(op)):
                raise ValueError(f"{op} has no property {name!r}{suggestion(name, properties_of(op))}")
        self.require.holds({name: "float32" if name == "dtype" else 1 for name in self.require.names})
        return self


class ShapesFile(_Sourced):
    """Which dimensions of the network's inputs may be left open."""

    dynamic: Literal["none", "batch", "all"]


class ArtifactFile(_Strict):
    """What the target's own toolchain reads."""

    format: str
    opset: StrictInt | None = Field(default=None, ge=1)
    runtimes: tuple[str, ...] = Field(min_length=1)


class TargetFile(_Strict):
    """A whole target file, parents merged in."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: StrictInt = Field(ge=1)
    description: str = Field(min_length=1)
    extends: str | None = None
    capabilities: tuple[Literal["scheme", "lint", "lower", "cost"], ...] = Field(min_length=1)
    sources: dict[str, SourceFile]
    artifact: ArtifactFile
    engines: dict[str, EngineFile] = Field(default_factory=dict)
    memories: dict[str, MemoryFile] = Field(default_factory=dict)
    numerics: NumericsFile
    operators: OperatorsFile
    shapes: ShapesFile
    constraints: dict[str, ConstraintFile] = Field(default_factory=dict)
