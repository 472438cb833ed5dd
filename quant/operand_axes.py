"""Which axis of an operand holds its output channels, and which is summed over; torch-free."""

from __future__ import annotations

from bitwright.quant.graph import Graph, TensorRef

# Where the output channels are; layers whose weight is [out, in, …] have them first.
_CHANNEL_AXIS = {
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1),
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm"), -1),
}
_ATTENTION_VALUES = 2  # behind queries and keys; their products are summed over the keys
_PRODUCTS = frozenset({"matmul", "mm", "bmm", "addmm", "baddbmm"})


def weight_axis(graph: Graph, ref: TensorRef) -> int:
    """The axis of a weight's output channels, as the first layer that reads it sees them."""
    rank = len(graph.tensors[ref].shape)
    reader = next((node for node in graph.consumers[ref] if graph.is_layer(node)), None)
    if reader is None:
        return 0
    if reader.op in ("matmul", "mm", "bmm") and reader.inputs[0] == ref:
        return rank - 2 if rank > 1 else 0  # it multiplies from the left: [out, in]
    return _CHANNEL_AXIS.get(reader.op, 0) % rank


def summed_axis(graph: Graph, ref: TensorRef) -> int | None:
    """The axis of an operand that its first reader's products are summed over: that which is cut into blocks.

    The input channels of convolutions (of each group), the inner dimension of matrix products, else the last axis;
    None for a single number, which is a block by itself.
    """
    rank = len(graph.tensors[ref].shape)
    reader = next((node for node in graph.consumers[ref] if graph.is_layer(node) or node.op in _PRODUCTS), None)
    if reader is None or rank < 2:
        return rank - 1 if rank else None
    position = reader.inputs.index(ref)
    if reader.op in _PRODUCTS:
        left = len(reader.inputs) - 2  # `addmm` and `baddbmm` have what is added before their factors
        return rank - 1 if position == left else rank - 2
    if reader.op == "scaled_dot_product_attention":
        return rank - 2 if position == _ATTENTION_VALUES else rank - 1
    if reader.op == "linear":
        return rank - 1
    data_position, _, _ = graph.layer_positions(reader)
    spatial = int(reader.op[-2])  # conv2d, conv_transpose2d
    if position == data_position:
        return rank - spatial - 1
    return 0 if reader.op.startswith("conv_transpose") else 1
