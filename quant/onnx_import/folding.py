"""What does not depend on the inputs, computed as ONNX's own reference does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from bitwright.quant.errors import InputError

Array = npt.NDArray[Any]

# Shape arithmetic, and what exporters make of weights. None of them is random or runs a body, and the size of their
# results is known before they run.
FOLDABLE = frozenset(
    """
    Shape Size Identity Cast Reshape Squeeze Unsqueeze Flatten Transpose Concat Slice Split Gather Expand Tile Range
    ConstantOfShape Constant Add Sub Mul Div Neg Abs Sqrt Reciprocal Exp Log Pow Mod Floor Ceil Round Sign Min Max
    Sin Cos Tanh Where Equal Less Greater LessOrEqual GreaterOrEqual Not And Or Clip ReduceProd ReduceSum ReduceMax
    ReduceMin ReduceMean Trilu EyeLike ScatterND ScatterElements GatherND GatherElements Pad MatMul Gemm CumSum Softmax
    Relu Sigmoid
    """.split()  # noqa: SIM905 - a list of sixty strings is harder to read
)


def evaluate(
    node: NodeProto, operands: Sequence[Array | None], position: int, shape: Sequence[int | None], opset: int
) -> Array:
    """One result of a node on given operands.

    Raises:
        InputError: the operands do not fit the node.
    """
    named = NodeProto(op_type=node.op_type, attribute=node.attribute)
    named.input.extend(f"operand{i}" if operand is not None else "" for i, operand in enumerate(operands))
    named.output.extend(f"result{i}" for i in range(len(node.output)))
    feeds = {f"operand{i}": operand for i, operand in enumerate(operands) if operand is not None}
    try:
        with np.errstate(all="ignore"):
            results: Any = ReferenceEvaluator(named, opsets={"": opset}).run(None, feeds)
        result = np.asarray(results[position])
    except Exception as error:  # the reference raises whatever NumPy does on operands that do not fit
        raise InputError(
            f"node {node.name or node.output[0]!r} ({node.op_type}) cannot be computed: {error}"
        ) from error
    if result.shape != tuple(shape):
        raise InputError(f"node {node.name or node.output[0]!r} ({node.op_type}): {result.shape} instead of {shape}")
    return result
