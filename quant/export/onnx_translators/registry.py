"""The table of translators, and what they share.

A translator reads operands with `builder.operand(node, i)` and writes `builder.result(node)`; several ONNX nodes may
be needed, but the last one makes the value that carries the operator's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_builder import ELEMENT_TYPES, OnnxBuilder
from bitwright.quant.graph import Node

Translator = Callable[[OnnxBuilder, Node], None]
TRANSLATORS: dict[str, Translator] = {}


def translates(*ops: str) -> Callable[[Translator], Translator]:
    """Registers a translator for operator types."""

    def register(function: Translator) -> Translator:
        for op in ops:
            if op in TRANSLATORS:
                raise ValueError(f"operator {op!r} has two translations")
            TRANSLATORS[op] = function
        return function

    return register


def unsupported(node: Node, what: str) -> InputError:
    """The error for a variant of an operator that ONNX cannot say."""
    return InputError(f"{node.source or node.module_path}: {node.op} with {what} has no ONNX translation")


def result_dtype(b: OnnxBuilder, node: Node) -> str:
    """The element type of a node's first result."""
    return b.graph.tensors[node.outputs[0]].dtype


def typed_operand(b: OnnxBuilder, node: Node, position: int, dtype: str, argument: str = "other") -> str:
    """An operand as `dtype`: cast when it has another type, a constant when it is a Python number."""
    ref = node.inputs[position] if position < len(node.inputs) else None
    if ref is None:
        return b.constant(b.result(node), np.asarray(node.attributes[argument]), dtype)
    name = b.read(ref, node)
    if b.graph.tensors[ref].dtype == dtype:
        return name
    return b.emit("Cast", [name], b.spare(b.result(node)), to=ELEMENT_TYPES[dtype])


def spread(value: int | Sequence[int], rank: int) -> list[int]:
    """One value for each spatial dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def both_sides(padding: int | Sequence[int], rank: int) -> list[int]:
    """ONNX's pads: before every dimension, then behind every dimension."""
    return spread(padding, rank) * 2
