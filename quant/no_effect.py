"""Calls whose result is one of their operands, element by element. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bitwright.quant.graph import Graph, Node, TensorRef


def unchanged_operand(graph: Graph, node: Node) -> TensorRef | None:
    """The operand that the node's only result is equal to in shape, type and every element; None for all other calls.

    A cast to a wider type and back is one, too: it gives what the first cast read.
    """
    if len(node.outputs) != 1 or not node.tensors:
        return None
    operand = node.tensors[0]
    before, after = graph.tensors[operand], graph.tensors[node.outputs[0]]
    if None in after.shape:
        return None
    if node.op == "to":
        return _cast_back(graph, node, after.dtype)
    if node.op in ("relu", "abs"):
        maker = graph.producers.get(operand)
        return operand if maker is not None and _never_negative(maker) else None
    holds = _UNCHANGED.get(node.op)
    same = before.shape == after.shape and before.dtype == after.dtype
    return (
        operand if same and holds is not None and holds(node.attributes, len(after.shape), len(node.tensors)) else None
    )


def _never_negative(node: Node) -> bool:
    clipped = node.op == "hardtanh" and node.attributes["min_val"] >= 0
    return clipped or node.op in ("relu", "sigmoid", "softmax", "hardsigmoid", "abs", "square", "exp", "softplus")


def _cast_back(graph: Graph, node: Node, dtype: str) -> TensorRef | None:
    operand = node.tensors[0]
    first = graph.producers.get(operand)
    if first is None or first.op != "to":
        return None
    start = first.tensors[0]
    fits = (dtype, graph.tensors[operand].dtype) in _WIDER and graph.tensors[start].dtype == dtype
    return start if fits else None


_WIDER = frozenset(
    {
        *(("float32", "float64"), ("float16", "float32"), ("float16", "float64"), ("bfloat16", "float32")),
        *(("bfloat16", "float64"), ("int32", "int64"), ("int8", "int32"), ("uint8", "int32")),
    }
)

Attributes = Mapping[str, Any]


def _numbers(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _always(attributes: Attributes, rank: int, tensors: int) -> bool:
    return True


def _window_of_one(attributes: Attributes, rank: int, tensors: int) -> bool:
    stride = attributes["stride"] or attributes["kernel_size"]
    sizes = [*_numbers(attributes["kernel_size"]), *_numbers(stride)]
    return all(size == 1 for size in sizes) and not any(_numbers(attributes["padding"]))


# For a result of its operand's shape and type: whether its elements are the operand's, too.
_UNCHANGED: dict[str, Callable[[Attributes, int, int], bool]] = {
    **dict.fromkeys(("reshape", "flatten", "squeeze", "unflatten", "expand", "expand_as", "repeat"), _always),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _always),
    "upsample_nearest2d": _always,
    "cat": lambda attributes, rank, tensors: tensors == 1,
    "slice": lambda attributes, rank, tensors: bool(attributes["step"] == 1),
    **dict.fromkeys(("pad", "constant_pad_nd"), lambda attributes, rank, tensors: not any(attributes["pad"])),
    "permute": lambda attributes, rank, tensors: [d % rank for d in attributes["dims"]] == list(range(rank)),
    "transpose": lambda attributes, rank, tensors: bool(attributes["dim0"] % rank == attributes["dim1"] % rank),
    "roll": lambda attributes, rank, tensors: not any(_numbers(attributes["shifts"])),
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), _window_of_one),
    **dict.fromkeys(("mul", "div"), lambda attributes, rank, tensors: tensors == 1 and attributes.get("other") == 1),
    **dict.fromkeys(("add", "sub"), lambda attributes, rank, tensors: tensors == 1 and attributes.get("other") == 0),
    "pow": lambda attributes, rank, tensors: tensors == 1 and attributes.get("exponent") == 1,
}
NO_EFFECT_OPERATORS = frozenset({*_UNCHANGED, "to", "relu", "abs"})
