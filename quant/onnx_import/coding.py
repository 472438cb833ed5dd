"""How the tensors of a float file are coded when another file beside it says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, NodeProto

from bitwright.quant.errors import InputError, suggestion
from bitwright.quant.onnx_import.qparams import ImportedQParams, qparams_of

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Coding:
    """The numbers of one tensor, as such a file has them.

    Attributes:
        dtype: of the codes, as in `formats.FORMATS`.
        scale: float32, `[]`, one for each channel, or the blocks' in a shape of their own or flat.
        zero_point: whole numbers, shape of `scale`.
        axis: of the channels or blocks; None where the layer that reads the tensor says which.
        block: neighbours along the axis that share a scale; None without blocks.
    """

    dtype: str
    scale: Array
    zero_point: Array
    axis: int | None = None
    block: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Codings:
    """What a whole file says.

    Attributes:
        file: its name, for messages.
        by_value: how tensors are coded, by the names of their values in the ONNX file.
        int32_biases: whether biases of coded layers are int32 with scale(input) * scale(weight), without being named.
    """

    file: str
    by_value: Mapping[str, Coding]
    int32_biases: bool = False

    def check_names(self, names: Sequence[str]) -> None:
        """Refuses a file that belongs to another network.

        Raises:
            InputError: it names a value that the network lacks.
        """
        known = set(names)
        strange = next((name for name in self.by_value if name not in known), None)
        if strange is not None:
            raise InputError(
                f"{self.file}: tensor {strange!r} is no value of the ONNX file beside it{suggestion(strange, names)}; "
                "the two files belong to different networks: export them together"
            )

    def qparams(self, name: str, shape: Shape, readers: Sequence[NodeProto]) -> ImportedQParams:
        """The qparams of a value.

        Args:
            name: the value.
            shape: its shape.
            readers: the nodes that read it; the first layer among them says where channels are.

        Raises:
            InputError: the scales do not fit the shape.
        """
        coding = self.by_value[name]
        scale, zero_point, axis = coding.scale, coding.zero_point, coding.axis
        try:
            if coding.block is not None:
                axis, whole = _block_shape(coding, name, shape, readers)
                scale, zero_point = (np.broadcast_to(_placed(each, axis, whole), whole) for each in (scale, zero_point))
            elif scale.size > 1:
                axis = channel_axis(name, shape, readers, scale.size) if axis is None else axis % len(shape)
                if shape[axis] not in (None, scale.size):
                    raise ValueError(f"{scale.size} scales for the {shape[axis]} channels along axis {axis}")
            found = qparams_of(coding.dtype, scale, zero_point, axis, block=coding.block)
        except ValueError as error:
            raise InputError(f"{self.file}: tensor {name!r} of shape {list(shape)}: {error}") from error
        if found is None:
            raise InputError(f"{self.file}: tensor {name!r}: there is no number format {coding.dtype!r}")
        return found


def _layer(name: str, readers: Sequence[NodeProto]) -> tuple[str, int, bool]:
    """The operator type of the first layer that reads a value, the value's place, and whether it is read transposed."""
    for node in readers:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            turned = any(each.name == "transB" and each.i for each in node.attribute if each.type == AttributeProto.INT)
            return node.op_type, list(node.input).index(name), turned
    return "", 0, False


def channel_axis(name: str, shape: Shape, readers: Sequence[NodeProto], count: int | None = None) -> int:
    """The axis of a weight's output channels.

    Args:
        name: its value.
        shape: its shape.
        readers: the nodes that read it.
        count: of the scales, for constants that no layer reads.

    Raises:
        ValueError: nothing says so.
    """
    op_type, position, turned = _layer(name, readers)
    if op_type:
        last = max(len(shape) - (1 if position else 2), 0)
        return {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if turned else 1, "MatMul": last}[op_type]
    fitting = [axis for axis, size in enumerate(shape) if size == count]
    if len(fitting) != 1:
        raise ValueError(f"{count} scales, and no layer reads it that would say for which axis")
    return fitting[0]


def _block_shape(coding: Coding, name: str, shape: Shape, readers: Sequence[NodeProto]) -> tuple[int, tuple[int, ...]]:
    """The axis that is cut into blocks, and the shape of all scales."""
    op_type, _, turned = _layer(name, readers)
    axis = coding.axis
    if axis is None:
        axis = {"Conv": 1, "ConvTranspose": 0, "Gemm": 1 if turned else 0, "MatMul": len(shape) - 2}.get(op_type)
    size = None if axis is None or None in shape else shape[axis]
    if axis is None or size is None or coding.block is None or coding.block < 2:
        raise ValueError(f"block_size = {coding.block}, and no layer of static shape reads it that would say where")
    sizes = [d or 0 for d in shape]
    axis %= len(sizes)
    sizes[axis] = -(-size // coding.block)
    return axis, tuple(sizes)


def _placed(values: Array, axis: int, whole: tuple[int, ...]) -> Array:
    """Scales in a shape that broadcasts to that of the blocks; flat ones are ordered by output channel, then block."""
    if values.ndim == len(whole):
        return values
    out = 1 - axis  # the channels of both kinds of layers are the first two axes
    if values.size != whole[axis] * whole[out]:
        raise ValueError(f"{values.size} scales for {whole[out]} channels of {whole[axis]} blocks")
    ordered = values.reshape(whole[out], whole[axis])
    return (ordered if out == 0 else ordered.T).reshape(*whole[:2], *(1,) * (len(whole) - 2))
