"""What a runtime runs as one piece: an operator with all that is fused into it, in one number format.

Two places in two networks run the same kernel when their `Kernel`s are equal; the key is what a latency table is
indexed by. Shapes are logical (batch, channels, …) whatever memory layout the runtime keeps its data in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

from bitwright.quant.errors import InputError

Value: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
Shape: TypeAlias = tuple[int, ...]

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


class Family(StrEnum):
    """Kernels that one model of latency can describe."""

    CONV = "conv"
    POINTWISE = "pointwise"  # a convolution whose kernel is 1 x 1
    DEPTHWISE = "depthwise"  # one channel a group
    GROUPED = "grouped"  # also of one channel, of which it makes several
    CONV_TRANSPOSE = "conv_transpose"
    LINEAR = "linear"  # activations by weights
    MATMUL = "matmul"  # activations by activations
    ATTENTION = "attention"  # softmax(Q K^T) V as one piece
    ELEMENTWISE = "elementwise"  # of two tensors or more
    ACTIVATION = "activation"  # of one tensor
    POOL = "pool"
    GLOBAL_POOL = "global_pool"
    CONCAT = "concat"
    SOFTMAX = "softmax"
    NORM = "norm"
    RESIZE = "resize"
    COPY = "copy"  # moves values: transpose, slice, split, pad, gather
    VIEW = "view"  # new shape, same bytes
    QUANTIZE = "quantize"
    DEQUANTIZE = "dequantize"
    REORDER = "reorder"  # inserted by the runtime between memory layouts
    OTHER = "other"


WEIGHTED = frozenset(
    {Family.CONV, Family.POINTWISE, Family.DEPTHWISE, Family.GROUPED, Family.CONV_TRANSPOSE, Family.LINEAR}
)
CONVOLUTIONS = WEIGHTED - {Family.LINEAR, Family.CONV_TRANSPOSE}


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One fused kernel.

    Attributes:
        family: its kind.
        op: ONNX's type of the operator that gives it its kind.
        format: what it computes in: `float32`, or `int8` for codes of 8 bits.
        inputs: shapes of its activations, those of fused operators behind the main one's.
        outputs: shapes of its results.
        weight: shape of its weight as in ONNX ([C_out, C_in / groups, *kernel]; linear [K, N]); empty without one.
        epilogue: what is fused behind it, in order: ONNX types in lower case, `quantize` where a real-valued kernel
            writes codes, `dequantize` where an int8 kernel writes real values.
        attributes: by name, sorted: ONNX's attributes as far as they matter, `const:N` for a small constant operand
            at position N.
        layout: of its activations in memory: `plain` (as the shape says), `blocked` (channels in blocks of a vector's
            width), `channels_last`.
    """

    family: Family
    op: str
    format: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    weight: Shape = ()
    epilogue: tuple[str, ...] = ()
    attributes: tuple[tuple[str, Value], ...] = ()
    layout: str = "plain"

    @cached_property
    def key(self) -> str:
        """Canonical text: the same for equal kernels, in this and every later process."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        return dict(self.attributes).get(name, default)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates; 0 for kernels that have none."""
        if self.family is Family.CONV_TRANSPOSE:
            return math.prod(self.inputs[0]) * math.prod(self.weight[1:])
        if self.family is Family.LINEAR:
            return math.prod(self.outputs[0]) * self.weight[0]
        if self.family in WEIGHTED:
            return math.prod(self.outputs[0]) * math.prod(self.weight[1:])
        if self.family is Family.MATMUL:
            return math.prod(self.outputs[0]) * self.inputs[0][-1]
        if self.family is Family.ATTENTION:
            query, key = self.inputs[:2]
            return 2 * math.prod(query) * key[-2]
        return 0

    @property
    def element_bytes(self) -> int:
        """Bytes of one element of its format."""
        return _BYTES[self.format]

    @property
    def input_bytes(self) -> int:
        """Of all activations that it reads."""
        return sum(map(math.prod, self.inputs)) * self._read_bytes

    @property
    def output_bytes(self) -> int:
        """Of all results that it writes."""
        return sum(map(math.prod, self.outputs)) * self._written_bytes

    @property
    def weight_bytes(self) -> int:
        """Of its weight; biases and scales are left out."""
        return math.prod(self.weight) * self.element_bytes if self.weight else 0

    @property
    def bytes(self) -> int:
        """All that it reads and writes, each byte once."""
        return self.input_bytes + self.output_bytes + self.weight_bytes

    @property
    def _read_bytes(self) -> int:
        if self.family is Family.QUANTIZE:
            return _BYTES["float32"]
        return _BYTES["int8"] if self.family is Family.DEQUANTIZE else self.element_bytes

    @property
    def _written_bytes(self) -> int:
        if self.family is Family.QUANTIZE or "quantize" in self.epilogue:
            return _BYTES["int8"]
        if self.family is Family.DEQUANTIZE or "dequantize" in self.epilogue:
            return _BYTES["float32"]
        return self.element_bytes

    def to_json(self) -> dict[str, Any]:
        """Plain values; fields that say nothing are left out."""
        record: dict[str, Any] = {
            "family": str(self.family),
            "op": self.op,
            "format": self.format,
            "inputs": [list(shape) for shape in self.inputs],
            "outputs": [list(shape) for shape in self.outputs],
        }
        if self.weight:
            record["weight"] = list(self.weight)
        if self.epilogue:
            record["epilogue"] = list(self.epilogue)
        if self.attributes:
            record["attributes"] = {
                name: list(value) if isinstance(value, tuple) else value for name, value in self.attributes
            }
        if self.layout != "plain":
            record["layout"] = self.layout
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Kernel:
        """Reads what `to_json` wrote.

        Raises:
            InputError: a field is missing, unknown or no such value.
        """
        try:
            attributes = {name: _frozen(value) for name, value in record.get("attributes", {}).items()}
            known = {
                "family": Family(record["family"]),
                "op": record["op"],
                "format": record["format"],
                "inputs": tuple(map(tuple, record["inputs"])),
                "outputs": tuple(map(tuple, record["outputs"])),
                "weight": tuple(record.get("weight", ())),
                "epilogue": tuple(record.get("epilogue", ())),
                "attributes": tuple(sorted(attributes.items())),
                "layout": record.get("layout", "plain"),
            }
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"not a kernel: {error!r} in {str(record)[:200]}") from error
        unknown = sorted(set(record) - set(known))
        if unknown:
            raise InputError(f"not a kernel: unknown fields {unknown}; there are {sorted(known)}")
        return cls(**known)

    def __str__(self) -> str:
        shapes = " + ".join("x".join(map(str, shape)) for shape in self.inputs)
        result = ", ".join("x".join(map(str, shape)) for shape in self.outputs)
        fused = "".join(f"+{op}" for op in self.epilogue)
        return f"{self.op}{fused} {self.format} {shapes} -> {result}"


def _frozen(value: Any) -> Value:
    return tuple(value) if isinstance(value, list) else value
