"""How the operators of a file round, and what its weights in codes have lost: from shapes and constants alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bitwright.quant.parity_measures.rounding import Rounding, ulps_of

Shape = Sequence[int | None]
# Values pass unchanged, or are compared.
_MOVES = frozenset(
    """
    Abs ArgMax ArgMin Cast Ceil Clip Compress Concat DepthToSpace DequantizeLinear Equal Expand Flatten Floor Gather
    GatherElements GatherND GlobalMaxPool Greater GreaterOrEqual Identity If Less LessOrEqual Loop Max MaxPool Min Neg
    NonMaxSuppression NonZero Not OneHot Pad QuantizeLinear ReduceMax ReduceMin Relu Reshape Round ScatterElements
    ScatterND Shape Sign Slice SpaceToDepth Split Squeeze Tile TopK Transpose Trilu Unique Unsqueeze Where
    """.split()  # noqa: SIM905 - a list of sixty strings is harder to read
)
# ONNX's words for functions that `rounding.ulps_of` knows by ATen's, as far as they differ in more than case.
_ATEN = {"LogSoftmax": "log_softmax", "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid"}
_INTERPOLATES = frozenset({"Resize", "GridSample", "Upsample"})
_WEIGHTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def rounding_of_node(node: NodeProto, shapes: Callable[[str], Shape | None]) -> Rounding:
    """How a node of a file rounds; in float32, as runtimes on processors compute.

    Args:
        node: the operator.
        shapes: of values, as far as they are known.
    """
    settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type in _MOVES or settings.get("mode") == b"nearest":
        return Rounding(op=node.op_type, terms=1, ulps=0.0, format="float32")
    ulps = ulps_of(_ATEN.get(node.op_type, node.op_type.lower()))
    if node.op_type in _INTERPOLATES:  # see `rounding.rounding_of`
        ulps = 2.0 * max((size or 1 for size in (shapes(node.input[0]) or ())[2:]), default=1)
    return Rounding(op=node.op_type, terms=_terms(node, settings, shapes), ulps=ulps, format="float32")


def _terms(node: NodeProto, settings: Mapping[str, Any], shapes: Callable[[str], Shape | None]) -> int:
    read = [_known(shapes(name)) for name in node.input]
    bias = int(len(node.input) > 2 and bool(node.input[2]))
    match node.op_type:
        case "Conv" if len(read) > 1 and read[1]:
            return max(1, math.prod(read[1][1:])) + bias
        case "ConvTranspose" if len(read) > 1 and read[1]:
            return max(1, math.prod(read[1]) // max(1, read[1][1])) + bias
        case "Gemm" if read[0]:
            return max(1, read[0][0 if settings.get("transA") else -1]) + bias
        case "MatMul" if read[0]:
            return max(1, read[0][-1])
        case "Softmax" | "LogSoftmax" if read[0]:
            return max(1, read[0][int(settings.get("axis", -1))])
        case "LayerNormalization" | "RMSNormalization" if read[0]:
            return max(1, math.prod(read[0][int(settings.get("axis", -1)) :]))
    made = math.prod(_known(shapes(node.output[0])) or (1,))
    return max(1, max((math.prod(each) for each in read if each), default=1) // max(1, made))


def _known(shape: Shape | None) -> tuple[int, ...]:
    """A dimension that is open counts once."""
    return tuple(size or 1 for size in shape or ())


def weight_noise_of_node(
    node: NodeProto, producers: Mapping[str, NodeProto], initializers: Mapping[str, TensorProto]
) -> float:
    """The power that rounding took from weights in codes, `step**2 / 12` each, of their own power; 0 for real ones."""
    dequantize = producers.get(node.input[1]) if node.op_type in _WEIGHTS and len(node.input) > 1 else None
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return 0.0
    parts = [initializers.get(name) for name in dequantize.input]
    if len(parts) < 2 or parts[0] is None or parts[1] is None:
        return 0.0
    codes, scale, *zero = (numpy_helper.to_array(part) for part in parts if part is not None)
    axis = next((each.i for each in dequantize.attribute if each.name == "axis"), 1)
    if scale.ndim > 1 or codes.dtype.kind not in "iu":
        return 0.0
    spread = [-1 if place == axis % codes.ndim else 1 for place in range(codes.ndim)] if scale.size > 1 else [1]
    offset = zero[0].astype(np.float64).reshape(spread) if zero else 0.0
    step: npt.NDArray[np.float64] = scale.astype(np.float64).reshape(spread)
    power = float(np.square((codes - offset) * step).mean())
    return float(np.square(step).mean()) / 12 / power if power > 0 else 0.0
