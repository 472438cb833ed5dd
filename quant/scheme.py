"""The vocabulary of quantization: what a target asks for, before any network is seen.

A `QuantScheme` comes from a target (`hw_constraints.target.Target.scheme`) or is written by hand. It says nothing
about one network; `plan.plan(graph, scheme)` applies it to one.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from bitwright.quant.formats import FORMATS, IntFormat, NumberFormat


class Granularity(StrEnum):
    """Over which elements one scale is shared."""

    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"
    PER_BLOCK = "per_block"  # of neighbours along the axis that a product sums over: int4's groups, MX's blocks


class ScaleKind(StrEnum):
    """Which scales the hardware can apply."""

    FLOAT32 = "float32"
    POWER_OF_TWO = "power_of_two"  # rounded up: nothing more is clipped
    E8M0 = "e8m0"  # a power of two, rounded down: the shared scale of MX formats
    FLOAT8_E4M3 = "float8_e4m3"  # of a block, times one float32 of the whole tensor: NVFP4


class BiasKind(StrEnum):
    """How the bias of a layer with weights is kept."""

    INT32 = "int32"  # with scale = input scale * weight scale, zero point 0
    FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True)
class QParamsSpec:
    """How one tensor is to be quantized; its numbers (`QParams`) are chosen later from data.

    Attributes:
        format: the number format of the codes.
        symmetric: zero point fixed at the code of 0.0 (0 for signed integers and floats).
        granularity: one scale, or one for each output channel (weights only), or one for each block.
        block_size: neighbours that share a scale; only with `per_block`. The last block may be shorter.
        narrow_range: leave out the most negative code ([-127, 127] for int8).
        scale_kind: float32, powers of two, or one of the two kinds that only blocks have.
        dynamic: the scale is taken from the values themselves whenever the network runs (activations only).
        observer: the name of the observer that turns data into a range.
        observer_arguments: its keyword arguments.
    """

    format: NumberFormat
    symmetric: bool
    granularity: Granularity = Granularity.PER_TENSOR
    block_size: int | None = None
    narrow_range: bool = False
    scale_kind: ScaleKind = ScaleKind.FLOAT32
    dynamic: bool = False
    observer: str = "min_max"
    observer_arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.format, IntFormat) and not self.symmetric:
            raise ValueError(f"format {self.format.name!r} has no zero point: symmetric must be true")
        in_blocks = self.granularity is Granularity.PER_BLOCK
        if in_blocks != (self.block_size is not None):
            raise ValueError("block_size is needed with granularity per_block, and only there")
        if self.block_size is not None and self.block_size < 2:
            raise ValueError(f"block_size = {self.block_size}; at least 2 values share a scale")
        if self.scale_kind in (ScaleKind.E8M0, ScaleKind.FLOAT8_E4M3) and not (in_blocks and self.symmetric):
            raise ValueError(f"scale_kind {self.scale_kind} is for symmetric formats per_block")

    def has_scales_within(self, permitted: QParamsSpec) -> bool:
        """Whether hardware that applies the scales of `permitted` applies these, too.

        One scale is the same scale for every channel, a power of two is a float32; blocks and scales that follow the
        data take hardware of their own.
        """
        if (self.block_size, self.dynamic) != (permitted.block_size, permitted.dynamic):
            return False
        coarser = self.granularity is permitted.granularity or permitted.granularity is Granularity.PER_CHANNEL
        power = self.scale_kind is ScaleKind.POWER_OF_TWO and permitted.scale_kind is ScaleKind.FLOAT32
        return coarser and (self.scale_kind is permitted.scale_kind or power)

    @property
    def code_range(self) -> tuple[int, int]:
        """The smallest and largest integer code in use.

        Raises:
            TypeError: the format is a float format.
        """
        if not isinstance(self.format, IntFormat):
            raise TypeError(f"format {self.format.name!r} has no integer codes")
        low = self.format.code_min + (1 if self.narrow_range and self.format.signed else 0)
        return low, self.format.code_max


@dataclass(frozen=True, kw_only=True)
class Override:
    """Replaces the scheme's defaults for some modules or one operator type.

    Attributes:
        module: a glob over module paths (`features.0.*`); empty when `operator` selects.
        operator: an operator type (`linear`); empty when `module` selects.
        keep_float: leave these in float.
        activations: for their outputs (and a graph input that only they read); None keeps the default.
        weights: for their weights; None keeps the default.
        origin: where the override was written, for messages (`recipe.yaml:14`).
    """

    module: str = ""
    operator: str = ""
    keep_float: bool = False
    activations: QParamsSpec | None = None
    weights: QParamsSpec | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        if bool(self.module) == bool(self.operator):
            raise ValueError(f"{self.origin or 'override'}: give either module or operator, not both or neither")

    def selects(self, *, module_path: str, operator: str) -> bool:
        """Whether a node of that module and operator type is meant."""
        if self.operator:
            return self.operator == operator
        return fnmatch.fnmatchcase(module_path, self.module) or fnmatch.fnmatchcase(module_path, f"{self.module}.*")


@dataclass(frozen=True, kw_only=True)
class QuantScheme:
    """What an accelerator computes in low precision, and how.

    Attributes:
        name: for messages; usually the target's id.
        activations: the default for activations.
        weights: the default for weights.
        operator_weights: weights of single operator types, where the default does not hold.
        bias: how biases are kept.
        quantized_operators: operator types that run in low precision.
        shared_qparams_operators: operator types whose inputs and outputs carry the same scale and zero point
            (they only move or select codes: max pooling, reshape, concat on most targets).
        fused_patterns: chains of operator types that the target runs as one; tensors inside are not quantized.
            The first operator of a chain is the anchor. Longer patterns win.
        quantize_outputs: whether the graph's own outputs are quantized, too.
        codes_only_operators: operator types whose low-precision kernel cannot write real values: their results are
            quantized even where they leave the graph.
        codes_as_read: results that no operator in low precision reads stay in float, unless their operator writes
            codes only: a product that is added to a residual in float, or a GELU's input.
        overrides: exceptions; the last one that selects a node wins.
    """

    name: str
    activations: QParamsSpec
    weights: QParamsSpec
    operator_weights: Mapping[str, QParamsSpec] = field(default_factory=dict)
    bias: BiasKind = BiasKind.INT32
    quantized_operators: frozenset[str]
    shared_qparams_operators: frozenset[str] = frozenset()
    fused_patterns: tuple[tuple[str, ...], ...] = ()
    quantize_outputs: bool = False
    codes_only_operators: frozenset[str] = frozenset()
    codes_as_read: bool = False
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        for spec in (self.activations, *(each.activations for each in self.overrides if each.activations)):
            if spec.granularity is Granularity.PER_CHANNEL:
                raise ValueError(f"scheme {self.name!r}: activations must be per_tensor or per_block")
            if spec.granularity is Granularity.PER_BLOCK and not spec.dynamic:
                raise ValueError(f"scheme {self.name!r}: activations per_block must be dynamic")
        for spec in (self.weights, *self.operator_weights.values()):
            if spec.dynamic:
                raise ValueError(f"scheme {self.name!r}: weights are known beforehand and cannot be dynamic")
        both = self.quantized_operators & self.shared_qparams_operators
        if both:
            raise ValueError(
                f"scheme {self.name!r}: {sorted(both)} stand in both quantized_operators and shared_qparams_operators"
            )

    def with_overrides(self, *overrides: Override) -> QuantScheme:
        """The same scheme with more exceptions behind its own."""
        return replace(self, overrides=(*self.overrides, *overrides))

    def override_for(self, *, module_path: str, operator: str) -> Override | None:
        """The last override that selects such a node, if any."""
        for override in reversed(self.overrides):
            if override.selects(module_path=module_path, operator=operator):
                return override
        return None


FLOAT32 = FORMATS["float32"]
