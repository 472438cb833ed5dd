"""The loop nest of an operator call, from the graph's shapes and the formats of its operands.

Three-dimensional convolutions and pools run slice by slice: their batch is images × output slices, and the taps along
the depth count among the input channels. A transposed convolution of stride s is the s² convolutions of stride 1 that
make its phases (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?"), so that no product
with an inserted zero is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from bitwright.hw_constraints.lower.work import Axis, Work, WorkKind
from bitwright.hw_constraints.operators import ADAPTIVE_POOLS, MATRIX_PRODUCTS, MOVEMENTS, REDUCTIONS, WINDOW_POOLS
from bitwright.quant.graph import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, Graph, Node, TensorRef

Bits = Callable[[TensorRef], int]

# Every result depends on all inputs along an axis (or in its group).
ROW_OPERATORS = frozenset(
    {
        *("softmax", "log_softmax", "layer_norm", "rms_norm", "group_norm", "instance_norm", "cumsum", "sort", "topk"),
        *("argsort", "argmax", "argmin", "logsumexp"),
    }
)
# Besides MOVEMENTS: they copy elements to places that attributes or indices say.
_COPIES = frozenset(
    {
        *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d", "gather"),
        *("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
        *("embedding", "index", "index_put", "index_add", "scatter", "scatter_add", "scatter_reduce", "slice_scatter"),
        *("select_scatter", "copy", "im2col", "col2im", "masked_select", "take", "tril", "triu", "fill", "one_hot"),
        *("dropout", "to", "_to_copy"),
    }
)


def work_of(
    graph: Graph, node: Node, bits: Bits, *, written: TensorRef | None = None, image: bool = True
) -> Work | None:
    """The nest of one call; None for a call without elements.

    Args:
        graph: with static shapes.
        node: the anchor of what runs as one.
        bits: of one element of each tensor.
        written: the tensor in which what runs as one ends; the node's own result by default.
        image: whether a tensor `[N, C, …]` that no window slides over has its channels in dimension 1 (an image) or
            in its last one (rows of features).
    """
    tensors = [graph.tensors[ref] for ref in (*node.tensors, *node.outputs)]
    if not node.outputs or any(tensor.elements == 0 for tensor in tensors):
        return None
    return _Nest(graph, node, bits, node.outputs[0] if written is None else written, image).work()


def kind_of(node: Node) -> WorkKind:
    """Which loops meet in a call, without looking at its shapes; a depthwise convolution counts as a convolution."""
    op = node.op
    if op in CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS:
        return WorkKind.CONVOLUTION
    if op in MATRIX_PRODUCTS:
        return WorkKind.MATRIX_PRODUCT
    if op in WINDOW_POOLS | ADAPTIVE_POOLS:
        return WorkKind.POOL
    if op in REDUCTIONS | ROW_OPERATORS and not _is_elementwise(node):
        return WorkKind.REDUCTION
    return WorkKind.MOVE if op in MOVEMENTS | _COPIES else WorkKind.ELEMENTWISE


def _is_elementwise(node: Node) -> bool:
    """`max` and `min` of two tensors are no reductions."""
    return node.op in ("max", "min") and len(node.tensors) > 1


class _Nest:
    def __init__(self, graph: Graph, node: Node, bits: Bits, written: TensorRef, image: bool) -> None:
        self.graph, self.node, self.bits, self.image = graph, node, bits, image
        self.read = [ref for ref in node.tensors if not graph.is_constant(ref)]
        first = self.read[0] if self.read else next(iter(node.tensors), node.outputs[0])
        self.input_bits, self.output_bits = bits(first), bits(written)

    def work(self) -> Work:
        kind, op = kind_of(self.node), self.node.op
        if kind is WorkKind.CONVOLUTION:
            return self._convolution() if op in CONVOLUTIONS else self._transposed_convolution()
        if kind is WorkKind.REDUCTION:
            return self._rows() if op in ROW_OPERATORS else self._reduction()
        by_kind = {
            WorkKind.MATRIX_PRODUCT: self._matrix_product,
            WorkKind.POOL: self._pool,
            WorkKind.MOVE: self._copy,
            WorkKind.ELEMENTWISE: self._elementwise,
        }
        return by_kind[kind]()

    def shape(self, ref: TensorRef) -> tuple[int, ...]:
        return tuple(size or 0 for size in self.graph.tensors[ref].shape)

    # --- windows that slide ---

    def _convolution(self) -> Work:
        data, weight = self.shape(self.node.tensors[0]), self.shape(self.node.tensors[1])
        result = self.shape(self.node.outputs[0])
        groups = self.node.attributes.get("groups", 1)
        axes = window_axes(self.node, data[2:], result[2:], weight[2:])
        slices, taps = (result[2], weight[2]) if len(axes) == 3 else (1, 1)
        out_channels, in_channels = weight[0] // groups, weight[1] * taps
        depthwise = groups > 1 and weight[1] == 1
        return Work(
            kind=WorkKind.DEPTHWISE if depthwise else WorkKind.CONVOLUTION,
            batch=result[0] * slices,
            groups=groups,
            out_channels=out_channels,
            in_channels=in_channels,
            y=axes[-2] if len(axes) > 1 else Axis(output=1, input=1),
            x=axes[-1],
            weight_bits=self.bits(self.node.tensors[1]),
            has_bias=len(self.node.tensors) > 2,
            input_bits=self.input_bits,
            output_bits=self.output_bits,
        )

    def _transposed_convolution(self) -> Work:
        data, weight = self.shape(self.node.tensors[0]), self.shape(self.node.tensors[1])
        result = self.shape(self.node.outputs[0])
        groups, count = self.node.attributes.get("groups", 1), len(weight) - 2
        strides = sizes_of(self.node.attributes.get("stride"), count, 1)
        padding = sizes_of(self.node.attributes.get("padding"), count, 0)
        taps_along = [-(-kernel // stride) for kernel, stride in zip(weight[2:], strides, strict=True)]
        axes = [
            Axis(output=-(-out // stride), input=size, kernel=kernel, padding=max(0, kernel - 1 - before // stride))
            for out, size, kernel, stride, before in zip(
                result[2:], data[2:], taps_along, strides, padding, strict=True
            )
        ]
        slices, taps = (axes[0].output, axes[0].kernel) if count == 3 else (1, 1)
        return Work(
            kind=WorkKind.CONVOLUTION,
            batch=result[0] * slices,
            groups=groups,
            out_channels=weight[1] * math.prod(strides),
            in_channels=weight[0] // groups * taps,
            y=axes[-2] if count > 1 else Axis(output=1, input=1),
            x=axes[-1],
            weight_bits=self.bits(self.node.tensors[1]),
            has_bias=len(self.node.tensors) > 2,
            input_bits=self.input_bits,
            output_bits=self.output_bits,
        )

    def _pool(self) -> Work:
        data, result = self.shape(self.node.tensors[0]), self.shape(self.node.outputs[0])
        count = int(self.node.op[-2])
        kernel = pool_kernel(self.node, data[-count:], result[-count:])
        axes = window_axes(self.node, data[-count:], result[-count:], kernel)
        batch = math.prod(data[: -count - 1])
        slices, taps = (result[-3], kernel[0]) if count == 3 else (1, 1)
        return Work(
            kind=WorkKind.POOL,
            batch=batch * slices,
            groups=data[-count - 1],
            out_channels=1,
            in_channels=taps,
            y=axes[-2] if count > 1 else Axis(output=1, input=1),
            x=axes[-1],
            weight_bits=0,
            input_bits=self.input_bits,
            output_bits=self.output_bits,
        )

    # --- products of matrices ---

    def _matrix_product(self) -> Work:
        if self.node.op == "scaled_dot_product_attention":
            return self._attention()
        data, weight, bias = self.graph.layer_positions(self.node)
        refs = self.node.inputs
        left, right = self.shape(refs[data] or refs[0]), self.shape(refs[weight] or refs[1])  # type: ignore[arg-type]
        result = self.shape(self.node.outputs[0])
        constant = self.graph.is_constant(refs[weight])  # type: ignore[arg-type]
        if self.node.op == "linear":
            out_channels, depth = right[0], right[1] if len(right) > 1 else right[0]
        elif weight < data:  # a constant from the left: its rows are the outputs
            out_channels, depth = (right[-2] if len(right) > 1 else 1), right[-1]
        else:
            depth, out_channels = (right[-2], right[-1]) if len(right) > 1 else (right[-1], 1)
        shared = constant and math.prod(right) == out_channels * depth
        results = math.prod(result)
        batch = 1 if shared else max(1, math.prod(result[:-2] if min(len(left), len(right)) > 1 else ()))
        rows = max(1, results // (out_channels * batch))
        return Work(
            kind=WorkKind.MATRIX_PRODUCT,
            batch=batch,
            out_channels=out_channels,
            in_channels=depth,
            y=Axis(output=1, input=1),
            x=Axis(output=rows, input=rows),
            weight_bits=self.bits(refs[weight]),  # type: ignore[arg-type]
            has_bias=bias < len(refs) and refs[bias] is not None,
            weights_are_activations=not constant,
            input_bits=self.input_bits,
            output_bits=self.output_bits,
        )

    def _attention(self) -> Work:
        query, key, value = (self.shape(ref) for ref in self.node.tensors[:3])
        return Work(
            kind=WorkKind.MATRIX_PRODUCT,
            batch=math.prod(query[:-2]),
            out_channels=key[-2],
            in_channels=query[-1] + value[-1],
            y=Axis(output=1, input=1),
            x=Axis(output=query[-2], input=query[-2]),
            weight_bits=self.bits(self.node.tensors[1]),
            weights_are_activations=True,
            input_bits=self.input_bits,
            output_bits=self.output_bits,
        )

    # --- without products ---

    def _rows(self) -> Work:
        """Each result along the row depends on the whole row: a reduction with as many outputs as inputs."""
        length = row_length(self.graph, self.node)
        rows = max(1, self.graph.tensors[self.node.tensors[0]].elements // length)
        results = max(1, self.graph.tensors[self.node.outputs[0]].elements // rows)
        return Work(
            kind=WorkKind.REDUCTION,
            out_channels=results,
            in_channels=length,
            y=Axis(output=1, input=1),
            x=Axis(output=rows, input=rows),
            weight_bits=0,
            input_bits=self.input_bits,
            output_bits=self.output_bits,
        )

    def _reduction(self) -> Work:
        results = self.graph.tensors[self.node.outputs[0]].elements
        reduced = max(1, self.graph.tensors[self.node.tensors[0]].elements // results)
        return Work(
            kind=WorkKind.REDUCTION,
            groups=results,
            out_channels=1,
            in_channels=reduced,
            y=Axis(output=1, input=1),
            x=Axis(output=1, input=1),
            weight_bits=0,
            input_bits=self.input_bits,
            output_bits=self.output_bits,
        )

    def _elementwise(self) -> Work:
        result = self.shape(self.node.outputs[0])
        batch, channels, rows, columns = canonical(result, image=self.image)
        elements = math.prod(result)
        full = sum(self.graph.tensors[ref].elements >= elements for ref in self.node.tensors)
        constants = [ref for ref in self.node.tensors if self.graph.is_constant(ref)]
        per_channel = [ref for ref in constants if self.graph.tensors[ref].elements <= channels]
        return Work(
            kind=WorkKind.ELEMENTWISE,
            batch=batch,
            groups=channels,
            out_channels=1,
            in_channels=1,
            y=Axis(output=rows, input=rows),
            x=Axis(output=columns, input=columns),
            operands=max(1, full),
            weight_bits=self.bits(per_channel[0]) if per_channel else 0,
            input_bits=self.input_bits,
            output_bits=self.output_bits,
        )

    def _copy(self) -> Work:
        results = sum(self.graph.tensors[ref].elements for ref in self.node.outputs)
        inputs = sum(self.graph.tensors[ref].elements for ref in self.read) or 1
        # What is taken out of a larger tensor, or from a table, is all that is read.
        inputs = min(inputs, results)
        return Work(
            kind=WorkKind.MOVE,
            out_channels=1,
            in_channels=1,
            y=Axis(output=1, input=1),
            x=Axis(output=results, input=inputs),
            weight_bits=0,
            input_bits=self.input_bits,
            output_bits=self.output_bits,
        )


def canonical(shape: Sequence[int], *, image: bool) -> tuple[int, int, int, int]:
    """A tensor's shape as (batch, channels, rows, columns): of an image, or of rows of features."""
    if image and len(shape) >= 3:
        return shape[0], shape[1], math.prod(shape[2:-1]), shape[-1]
    return 1, (shape[-1] if shape else 1), 1, math.prod(shape[:-1])


def row_length(graph: Graph, node: Node) -> int:
    """How many elements along its axis (or in its group) an operator of `ROW_OPERATORS` takes together."""
    shape = tuple(size or 0 for size in graph.tensors[node.tensors[0]].shape)
    if node.op in ("layer_norm", "rms_norm"):
        return math.prod(node.attributes["normalized_shape"])
    if node.op == "group_norm":
        return math.prod(shape[1:]) // int(node.attributes["num_groups"])
    if node.op == "instance_norm":
        return math.prod(shape[2:])
    axis = node.attributes.get("dim", -1)
    if axis is None or not shape:
        return math.prod(shape)
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return math.prod(shape[each] for each in axes)


def sizes_of(given: Any, count: int, default: int) -> list[int]:
    """An ATen size argument as `count` numbers: `3`, `[3]` and `[3, 3]` are the same for two dimensions."""
    values = [value for value in (given if isinstance(given, list | tuple) else [given]) if isinstance(value, int)]
    if len(values) <= 1:
        values = (values or [default]) * count
    return values


def pool_kernel(node: Node, sizes: Sequence[int], results: Sequence[int]) -> list[int]:
    """The window of a pool; of an adaptive one the largest of its windows."""
    if node.op in WINDOW_POOLS:
        return sizes_of(node.attributes.get("kernel_size"), len(sizes), 1)
    return [
        max(-(-(i + 1) * size // out) - i * size // out for i in range(out))
        for size, out in zip(sizes, results, strict=True)
    ]


def window_axes(node: Node, sizes: Sequence[int], results: Sequence[int], kernel: Sequence[int]) -> list[Axis]:
    """The axes over which a window slides, first to last.

    Padding given as `same` follows from the sizes.
    """
    count = len(kernel)
    attributes = node.attributes
    dilation = sizes_of(attributes.get("dilation"), count, 1)
    if node.op in ADAPTIVE_POOLS:
        stride = [max(1, size // out) for size, out in zip(sizes, results, strict=True)]
    else:
        default = kernel if node.op in WINDOW_POOLS else [1] * count
        stride = sizes_of(attributes["stride"], count, 1) if attributes.get("stride") else list(default)
    padding = sizes_of(attributes.get("padding"), count, 0)
    if attributes.get("padding") == "same":
        padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    return [
        Axis(output=out, input=size, kernel=k, stride=s, dilation=d, padding=p)
        for out, size, k, s, d, p in zip(results, sizes, kernel, stride, dilation, padding, strict=True)
    ]
