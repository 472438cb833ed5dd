"""How the arithmetic of a target is written: formats, what becomes of each operator, and limits on its calls."""

from __future__ import annotations

from typing import Any

from pydantic import Field, StrictBool, model_validator

from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.operators import properties_of
from bitwright.hw_constraints.target_fields import Chains, Condition, FormatName, OperatorName, Sourced, Strict
from bitwright.hw_constraints.target_numerics import DynamicShapes, Otherwise
from bitwright.quant.errors import suggestion
from bitwright.quant.formats import FORMATS, FloatFormat
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, ScaleKind


class SpecFile(Strict):
    """One permitted way to keep a tensor."""

    format: FormatName
    symmetric: StrictBool
    granularity: Granularity = Granularity.PER_TENSOR
    block_size: int | None = None
    narrow_range: StrictBool = False
    scale_kind: ScaleKind = ScaleKind.FLOAT32
    dynamic: StrictBool = False
    observer: str = "min_max"
    observer_arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _float_formats_are_symmetric(self) -> SpecFile:
        if isinstance(FORMATS[self.format], FloatFormat) and not self.symmetric:
            raise ValueError(f"{self.format} has no zero point: symmetric must be true")
        return self

    @model_validator(mode="after")
    def _scales_can_be(self) -> SpecFile:
        QParamsSpec(
            format=FORMATS[self.format],
            symmetric=self.symmetric,
            granularity=self.granularity,
            block_size=self.block_size,
            scale_kind=self.scale_kind,
        )
        return self


class NumericsFile(Sourced):
    """Which formats are permitted; the first of each list is the default."""

    activations: tuple[SpecFile, ...] = Field(min_length=1)
    weights: tuple[SpecFile, ...] = Field(min_length=1)
    operator_weights: dict[OperatorName, tuple[SpecFile, ...]] = Field(default_factory=dict)
    bias: BiasKind
    float_formats: tuple[FormatName, ...] = ()
    quantize_outputs: StrictBool = False

    @model_validator(mode="after")
    def _activations_are_per_tensor(self) -> NumericsFile:
        for spec in self.activations:
            if spec.granularity is not Granularity.PER_TENSOR and not (spec.block_size and spec.dynamic):
                raise ValueError("activations are kept per_tensor, or per_block and dynamic")
        for op, specs in self.operator_weights.items():
            if not specs:
                raise ValueError(f"operator_weights.{op} permits nothing; name a format or drop the key")
        return self


class DecomposedFile(Sourced):
    """Operators that the toolchain writes as several of its own."""

    into: dict[OperatorName, tuple[OperatorName, ...]] = Field(min_length=1)


class TableLookupsFile(Sourced):
    """Functions of one element that the operator before them looks up as it writes its result."""

    of: tuple[OperatorName, ...] = Field(min_length=1)


class OperatorsFile(Sourced):
    """Which operators run in low precision, which only move codes, and what happens to all others."""

    quantized: tuple[OperatorName, ...] = Field(min_length=1)
    shared_qparams: tuple[OperatorName, ...] = ()
    fused_patterns: tuple[Chains, ...] = ()
    table_lookups: TableLookupsFile | None = None
    decomposed: DecomposedFile | None = None
    codes_only: tuple[OperatorName, ...] = ()
    refused: tuple[OperatorName, ...] = ()
    others: Otherwise
    single_partition: StrictBool = False

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
        looked_up = self.table_lookups.of if self.table_lookups else ()
        for key, listed in (("codes_only", self.codes_only), ("table_lookups", looked_up)):
            for name in listed:
                if name not in self.quantized:
                    raise ValueError(f"{key} has {name!r}, which is not quantized")
        runs = {*self.quantized, *self.shared_qparams}
        for name, parts in taken_apart.items():
            for part in parts:
                if part not in runs:
                    raise ValueError(
                        f"decomposed {name!r} has the part {part!r}, which is not quantized or shared_qparams"
                    )
        return self


class ConstraintFile(Sourced):
    """What must hold for every call of some operators."""

    operators: tuple[OperatorName, ...] = Field(min_length=1)
    require: Condition
    because: str = Field(min_length=1)
    suggestion: str = Field(min_length=1)
    severity: Severity = Severity.ERROR

    @model_validator(mode="after")
    def _names_are_properties(self) -> ConstraintFile:
        for op in self.operators:
            for name in sorted(self.require.names - properties_of(op)):
                raise ValueError(f"{op} has no property {name!r}{suggestion(name, properties_of(op))}")
        self.require.holds({name: "float32" if name == "dtype" else 1 for name in self.require.names})
        return self


class ShapesFile(Sourced):
    """Which dimensions of the network's inputs may be left open."""

    dynamic: DynamicShapes
