"""Causes that lie in a layer's weight or bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitwright.hw_constraints.proof.case import LayerCase, Role
from bitwright.hw_constraints.proof.changes import (
    BIAS_TOLERANCE,
    Change,
    bias_scale_error,
    expected_bias_scale,
    made_codes,
    with_bias_kept_matching,
    with_matching_bias,
)


def weight_not_quantized(case: LayerCase) -> Change | None:
    """A constant weight without codes."""
    weight = case.operand(Role.WEIGHT)
    if weight is None or weight.codes is not None:
        return None
    return Change(
        found="its weight is float32",
        allowed="an int8 weight and its DequantizeLinear",
        case=with_bias_kept_matching(case, case.with_operands(Role.WEIGHT, codes=made_codes("int8", 0))),
    )


def weight_asymmetric(case: LayerCase) -> Change | None:
    """Weight zero points other than the middle of the code range."""
    weight = case.operand(Role.WEIGHT)
    if weight is None or weight.codes is None:
        return None
    middle = 128 if weight.codes.dtype == "uint8" else 0
    if not np.any(weight.codes.zero_point != middle):
        return None
    centred = np.full_like(weight.codes.zero_point, middle)
    lowest, highest = weight.codes.zero_point.min(), weight.codes.zero_point.max()
    return Change(
        found=f"its weight is asymmetric (zero points {lowest} to {highest})",
        allowed=f"zero point {middle}",
        case=case.with_operands(Role.WEIGHT, codes=replace(weight.codes, zero_point=centred)),
    )


def weight_unsigned(case: LayerCase) -> Change | None:
    """Weight codes are uint8."""
    weight = case.operand(Role.WEIGHT)
    if weight is None or weight.codes is None or weight.codes.dtype != "uint8":
        return None
    centred = np.zeros_like(weight.codes.zero_point)
    return Change(
        found="its weight codes are unsigned (uint8)",
        allowed="signed symmetric weight codes (int8, zero point 0)",
        case=case.with_operands(Role.WEIGHT, codes=replace(weight.codes, dtype="int8", zero_point=centred)),
    )


def weight_granularity(case: LayerCase) -> Change | None:
    """Several weight scales: along another axis than the output channels, in blocks, or not supported at all."""
    weight = case.operand(Role.WEIGHT)
    if weight is None or weight.codes is None or (weight.codes.axis is None and weight.codes.scale.ndim < 2):
        return None
    shared = replace(
        weight.codes,
        scale=weight.codes.scale.max(keepdims=True).reshape(()),
        zero_point=np.zeros((), np.int32),
        axis=None,
    )
    kind = "in blocks" if weight.codes.scale.ndim > 1 else f"along axis {weight.codes.axis}"
    return Change(
        found=f"its weight has {weight.codes.scale.size} scales {kind}",
        allowed="one weight scale, or one for each output channel",
        case=with_bias_kept_matching(case, case.with_operands(Role.WEIGHT, codes=shared)),
    )


def weight_not_constant(case: LayerCase) -> Change | None:
    """A convolution whose weight is computed while the network runs."""
    if case.op not in ("Conv", "ConvTranspose") or case.operand(Role.WEIGHT) is not None:
        return None
    weight = replace(case.operands[1], role=Role.WEIGHT, codes=made_codes("int8", 0), stored_float=False)
    operands = (case.operands[0], weight, *case.operands[2:])
    return Change(
        found=f"its weight is computed by {case.operands[1].source} while the network runs",
        allowed="a constant int8 weight",
        case=with_bias_kept_matching(case, replace(case, operands=operands)),
    )


def bias_scale(case: LayerCase) -> Change | None:
    """Bias codes that do not carry input scale * weight scale."""
    bias, error = case.operand(Role.BIAS), bias_scale_error(case)
    if bias is None or bias.codes is None or error is None or (error <= BIAS_TOLERANCE and bias.codes.dtype == "int32"):
        return None
    return Change(
        found=f"its bias is {bias.codes.dtype} with a scale {error:.1%} away from input scale * weight scale",
        allowed="int32 bias codes with scale = input scale * weight scale",
        case=with_matching_bias(case),
    )


def bias_float(case: LayerCase) -> Change | None:
    """A real-valued bias."""
    bias = case.operand(Role.BIAS)
    if bias is None or bias.codes is not None or expected_bias_scale(case) is None:
        return None
    return Change(
        found="its bias is float32",
        allowed="int32 bias codes with scale = input scale * weight scale",
        case=with_matching_bias(case.with_operands(Role.BIAS, codes=made_codes("int32", 0))),
    )
