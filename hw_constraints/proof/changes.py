"""Changes to a layer's surroundings that causes are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.proof.case import LayerCase, Operand, Role
from bitwright.hw_constraints.proof.onnx_graph import Codes

CODE_LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}
_SCALE = np.float32(0.05)
BIAS_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Change:
    """A property that was found, the one that would do, and the case with it."""

    found: str
    allowed: str
    case: LayerCase


def expected_bias_scale(case: LayerCase) -> npt.NDArray[np.float32] | None:
    """Input scale * weight scale, scalar or [C_out]; None when one of them is missing."""
    data, weight = case.operand(Role.DATA), case.operand(Role.WEIGHT)
    if data is None or weight is None or data.codes is None or weight.codes is None:
        return None
    if weight.codes.scale.ndim > 1 or data.codes.scale.size != 1:
        return None
    return np.asarray(data.codes.scale.reshape(()) * weight.codes.scale, np.float32)


def with_matching_bias(case: LayerCase) -> LayerCase:
    """The case with the scale of a coded bias made to fit."""
    bias, expected = case.operand(Role.BIAS), expected_bias_scale(case)
    if bias is None or bias.codes is None or expected is None:
        return case
    expected = expected.reshape(()) if expected.size == 1 else expected
    codes = replace(
        bias.codes,
        dtype="int32",
        scale=expected,
        zero_point=np.zeros(expected.shape, np.int32),
        axis=0 if expected.ndim else None,
    )
    return case.with_operands(Role.BIAS, codes=codes)


def bias_scale_error(case: LayerCase) -> float | None:
    """How far a coded bias' scale is from input scale * weight scale, relatively, at worst; None without either."""
    bias, expected = case.operand(Role.BIAS), expected_bias_scale(case)
    if bias is None or bias.codes is None or expected is None:
        return None
    if bias.codes.scale.size not in (1, expected.size) and expected.size != 1:
        return float("inf")
    return float(np.max(np.abs(bias.codes.scale / expected - 1)))


def with_bias_kept_matching(before: LayerCase, after: LayerCase) -> LayerCase:
    """`after`, its bias scale made to fit unless it did not fit in `before`: that is a cause of its own."""
    error = bias_scale_error(before)
    return with_matching_bias(after) if error is None or error <= BIAS_TOLERANCE else after


def made_codes(dtype: str, zero_point: int) -> Codes:
    """Codes with one made-up scale for the whole tensor."""
    return Codes(dtype=dtype, scale=np.asarray(_SCALE), zero_point=np.asarray(zero_point, np.int32), axis=None)


def activation_codes(case: LayerCase) -> list[Codes]:
    """The codes of data operands and of the result."""
    inputs = [operand.codes for operand in case.operands if operand.role is Role.DATA]
    return [codes for codes in (*inputs, case.output) if codes is not None]


def all_codes(case: LayerCase) -> list[Codes]:
    """The codes of data operands, result and weight."""
    return [*activation_codes(case), *(o.codes for o in case.operands if o.role is Role.WEIGHT and o.codes)]


def has_other_width(case: LayerCase) -> bool:
    """Whether the weight has codes that are not of 8 bits."""
    weight = case.operand(Role.WEIGHT)
    return weight is not None and weight.codes is not None and weight.codes.dtype not in ("uint8", "int8")


def map_activations(case: LayerCase, change: Callable[[Codes], Codes]) -> LayerCase:
    """The case with the codes of data operands and result changed."""

    def changed(operand: Operand) -> Operand:
        if operand.role is not Role.DATA or operand.codes is None:
            return operand
        return replace(operand, codes=change(operand.codes))

    output = None if case.output is None else change(case.output)
    return replace(case, operands=tuple(map(changed, case.operands)), output=output)


def to_8_bits(codes: Codes) -> Codes:
    """Makes uint8 codes for about the same range; codes of 8 bits as they are."""
    if codes.dtype in ("uint8", "int8"):
        return codes
    low, high = CODE_LIMITS.get(codes.dtype, (0, 0))
    low_ended = codes.zero_point.size == 1 and int(codes.zero_point.flat[0]) == low
    span = (high - low) / 255 if high > low else 1.0
    zero_point = np.zeros_like(codes.zero_point) if low_ended else np.full_like(codes.zero_point, 128)
    return replace(codes, dtype="uint8", scale=np.asarray(codes.scale * np.float32(span)), zero_point=zero_point)


def to_unsigned(codes: Codes) -> Codes:
    """Makes uint8 codes for the same values; others than int8 as they are."""
    if codes.dtype != "int8":
        return codes
    return replace(codes, dtype="uint8", zero_point=np.asarray(codes.zero_point + 128, np.int32))
