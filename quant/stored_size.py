"""What a tensor takes where it is stored: its codes, and beside them the scales of its blocks.

Scales of a whole tensor or channel are a thousandth of it and are not counted; those of blocks are: MXFP4 takes 4.25
bits an element, NVFP4 4.5, int4 with a float32 scale for each 32 takes 5. Torch-free.
"""

from __future__ import annotations

from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.operand_axes import summed_axis
from bitwright.quant.scheme import QParamsSpec, ScaleKind

_DTYPE_BITS = {"bool": 8, "float16": 16, "bfloat16": 16, "complex64": 64, "complex128": 128}
_SCALE_BITS = {
    ScaleKind.FLOAT32: 32,
    ScaleKind.POWER_OF_TWO: 32,  # stored as the float32 that it is
    ScaleKind.E8M0: 8,
    ScaleKind.FLOAT8_E4M3: 8,  # the float32 of the whole tensor is not counted, as that of others is not
}


def dtype_bits(dtype: str) -> int:
    """Bits of one element of a type, `int64` and `float8_e4m3fn` among them."""
    if dtype in _DTYPE_BITS:
        return _DTYPE_BITS[dtype]
    digits = "".join(character for character in dtype.partition("_")[0] if character.isdigit())
    return int(digits) if digits else 32


def element_bits(dtype: str, spec: QParamsSpec | None) -> int:
    """Bits of one element: of its code, or by its type where it has none."""
    return dtype_bits(dtype) if spec is None else spec.format.bits


def stored_bits(graph: Graph, ref: TensorRef, bits: int, spec: QParamsSpec | None) -> int:
    """Bits of a whole tensor with the scales (and zero points) of its blocks.

    Args:
        graph: the network.
        ref: the tensor, of static shape.
        bits: of one element.
        spec: how it is quantized; None in float.
    """
    info = graph.tensors[ref]
    if spec is None or spec.block_size is None:
        return info.elements * bits
    each = _SCALE_BITS[spec.scale_kind] + (0 if spec.symmetric else spec.format.bits)
    return info.elements * bits + _blocks(graph, ref, spec.block_size) * each


def _blocks(graph: Graph, ref: TensorRef, size: int) -> int:
    """How many blocks a tensor is cut into; the last one along the axis may be shorter."""
    axis, info = summed_axis(graph, ref), graph.tensors[ref]
    length = info.shape[axis] if axis is not None else 1
    if not length:
        return 0
    return info.elements // length * -(-length // size)
