"""What may keep a layer out of int8, each as one change to the layer's surroundings.

A cause says what was found, what would do, and makes that change; `probe` asks the runtime whether it helps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bitwright.hw_constraints.proof.case import Follower, LayerCase, Role
from bitwright.hw_constraints.proof.changes import (
    CODE_LIMITS,
    Change,
    activation_codes,
    all_codes,
    has_other_width,
    made_codes,
    map_activations,
    to_8_bits,
    to_unsigned,
    with_bias_kept_matching,
)
from bitwright.hw_constraints.proof.onnx_graph import Codes
from bitwright.hw_constraints.proof.weight_causes import (
    bias_float,
    bias_scale,
    weight_asymmetric,
    weight_granularity,
    weight_not_constant,
    weight_not_quantized,
    weight_unsigned,
)

_PROBED_OPSET = 17


def input_not_quantized(case: LayerCase) -> Change | None:
    """A data operand that reaches the layer in float."""
    bare = [operand for operand in case.operands if operand.role is Role.DATA and operand.codes is None]
    if not bare:
        return None
    codes = case.output if _only_moves_or_selects(case) and case.output else made_codes("uint8", 128)
    changed = [replace(o, codes=codes) if o in bare else o for o in case.operands]
    return Change(
        found=f"its input comes from {bare[0].source} in float, without Q/DQ",
        allowed="Q/DQ before its input",
        case=with_bias_kept_matching(case, replace(case, operands=tuple(changed))),
    )


def output_not_quantized(case: LayerCase) -> Change | None:
    """No QuantizeLinear behind the layer and its activation."""
    if case.output is not None:
        return None
    data = case.operand(Role.DATA)
    same = data.codes if data is not None and _only_moves_or_selects(case) else None
    return Change(
        found="no QuantizeLinear stands behind it",
        allowed="Q/DQ behind it",
        case=replace(case, output=same or made_codes("uint8", 0 if _floor(case.followers) is not None else 128)),
    )


def codes_differ(case: LayerCase) -> Change | None:
    """One data operand without a weight: a layer that may only move or select codes, if they mean the same behind."""
    data = case.operand(Role.DATA)
    if data is None or data.codes is None or case.output is None or not _only_moves_or_selects(case):
        return None
    before, behind = data.codes, case.output
    pairs = ((before.scale, behind.scale), (before.zero_point, behind.zero_point))
    if before.dtype == behind.dtype and all(np.array_equal(one, other) for one, other in pairs):
        return None
    return Change(
        found=f"the codes before and behind it differ ({_described(before)}; {_described(behind)})",
        allowed="the same scale and zero point behind it as before",
        case=replace(case, output=before),
    )


def read_in_float(case: LayerCase) -> Change | None:
    """The result before its QuantizeLinear is used elsewhere, too."""
    if not case.float_readers and not case.is_graph_output:
        return None
    by = f"read by {', '.join(case.float_readers)}" if case.float_readers else "a result of the graph"
    return Change(
        found=f"its result is quantized and also {by} in float",
        allowed="only the QuantizeLinear reading its result",
        case=replace(case, float_readers=(), is_graph_output=False),
    )


def quantized_twice(case: LayerCase) -> Change | None:
    """Several QuantizeLinear read the same result."""
    if case.quantizers < 2:
        return None
    return Change(
        found=f"{case.quantizers} QuantizeLinear read its result",
        allowed="one QuantizeLinear whose codes all readers share",
        case=replace(case, quantizers=1),
    )


def wide_codes(case: LayerCase) -> Change | None:
    """Codes of more or fewer than 8 bits."""
    found = [codes.dtype for codes in all_codes(case) if codes.dtype not in ("uint8", "int8", "int32")]
    if not found:
        return None
    weights_changed = case.with_operands(Role.WEIGHT, codes=made_codes("int8", 0)) if has_other_width(case) else case
    return Change(
        found=f"codes are {found[0]}",
        allowed="8-bit codes",
        case=with_bias_kept_matching(case, map_activations(weights_changed, to_8_bits)),
    )


def signed_activations(case: LayerCase) -> Change | None:
    """Activation codes are int8."""
    signed = [codes for codes in activation_codes(case) if codes.dtype == "int8"]
    if not signed:
        return None
    return Change(
        found=f"activation codes are signed (int8, zero point {int(signed[0].zero_point.flat[0])})",
        allowed="unsigned activation codes (uint8)",
        case=map_activations(case, to_unsigned),
    )


def activation_not_saturated(case: LayerCase) -> Change | None:
    """A Relu or Clip whose bounds the codes do not reproduce, so that it cannot be dropped.

    Codes q in [q_min, q_max] stand for (q - zero_point) * scale. They cut at a lower bound of 0 only when
    zero_point = q_min, and at an upper bound c only when round(c / scale) + zero_point >= q_max.
    """
    floor, ceiling = _floor(case.followers), _ceiling(case.followers)
    if case.output is None or case.output.dtype not in CODE_LIMITS or floor is None:
        return None
    low, high = CODE_LIMITS[case.output.dtype]
    zero_point, scale = int(case.output.zero_point.flat[0]), float(case.output.scale.flat[0])
    loose_below = zero_point != low
    loose_above = ceiling is not None and round(ceiling / scale) + zero_point < high
    if not loose_below and not loose_above:
        return None
    op = case.followers[0].op
    top = (high - zero_point) * scale
    found = (
        f"{op} cuts at 0, but its codes ({case.output.dtype}, zero point {zero_point}) reach below"
        if loose_below
        else f"{op} cuts at {ceiling:g}, but its codes reach {top:.5g}"
    )
    fitted = scale if ceiling is None else ceiling / (high - low)
    return Change(
        found=found,
        allowed=f"zero point {low}" + (f" and scale {fitted:.6g}" if loose_above else ""),
        case=replace(
            case,
            output=replace(
                case.output, zero_point=np.asarray(low, np.int32), scale=np.asarray(fitted, np.float32), axis=None
            ),
        ),
    )


def activation_not_absorbed(case: LayerCase) -> Change | None:
    """An operator between the layer and its QuantizeLinear."""
    if not case.followers:
        return None
    names = ", ".join(follower.op for follower in case.followers)
    return Change(
        found=f"{names} stands between it and its QuantizeLinear",
        allowed="Q/DQ directly behind it",
        case=replace(case, followers=(), output=case.output or made_codes("uint8", 128)),
    )


def codes_shared(case: LayerCase) -> Change | None:
    """Codes that several operators read."""
    if all(codes.readers < 2 for codes in activation_codes(case)):
        return None
    return Change(
        found="its input's or output's codes are read by several operators",
        allowed="codes with one reader",
        case=map_activations(case, lambda codes: replace(codes, readers=1)),
    )


def opset(case: LayerCase) -> Change | None:
    """An operator set that the runtime's fusions do not cover."""
    if case.opset == _PROBED_OPSET:
        return None
    return Change(
        found=f"the file has opset {case.opset}",
        allowed=f"opset {_PROBED_OPSET}",
        case=replace(case, opset=_PROBED_OPSET),
    )


CAUSES: tuple[Callable[[LayerCase], Change | None], ...] = (
    weight_not_constant,
    input_not_quantized,
    weight_not_quantized,
    output_not_quantized,
    codes_differ,
    read_in_float,
    quantized_twice,
    wide_codes,
    activation_not_saturated,
    signed_activations,
    weight_asymmetric,
    weight_unsigned,
    weight_granularity,
    bias_scale,
    bias_float,
    codes_shared,
    activation_not_absorbed,
    opset,
)


def _only_moves_or_selects(case: LayerCase) -> bool:
    """Whether it may be such a layer: one data operand, no weight."""
    roles = [operand.role for operand in case.operands]
    return roles.count(Role.DATA) == 1 and Role.WEIGHT not in roles


def _described(codes: Codes) -> str:
    return f"{codes.dtype}, scale {float(codes.scale.flat[0]):.6g}, zero point {int(codes.zero_point.flat[0])}"


def _floor(followers: tuple[Follower, ...]) -> float | None:
    """0.0 when the one follower cuts there."""
    if len(followers) != 1:
        return None
    if followers[0].op == "Relu":
        return 0.0
    return 0.0 if followers[0].op == "Clip" and _bound(followers[0], 1, "min") == 0.0 else None


def _ceiling(followers: tuple[Follower, ...]) -> float | None:
    return _bound(followers[0], 2, "max") if len(followers) == 1 and followers[0].op == "Clip" else None


def _bound(clip: Follower, position: int, name: str) -> float | None:
    """Clip's bounds are operands since opset 11, attributes before."""
    if len(clip.operands) > position and clip.operands[position] is not None:
        return float(np.asarray(clip.operands[position]).flat[0])
    return next((float(attribute.f) for attribute in clip.attributes if attribute.name == name), None)
