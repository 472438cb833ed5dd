"""From a graph to the accelerator's operations: batch norms and activations fused, concatenations written in place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from bitwright.hw_constraints.cost.ethos_u.figures import BRICK, Configuration, Hwc
from bitwright.hw_constraints.cost.ethos_u.operations import UNIT, FeatureMap, NpuOp, OpKind, Window, connect
from bitwright.hw_constraints.cost.ethos_u.weight_codes import weight_codes
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph, Node, TensorRef

CLIPS = ("relu", "hardtanh", "clamp", "relu6")
TABLES = ("sigmoid", "tanh", "hardswish", "leaky_relu", "hardsigmoid", "elu", "gelu")
VIEWS = ("flatten", "view", "reshape", "dropout", "squeeze", "unsqueeze", "contiguous", "alias")
BINARY = ("add", "sub", "mul", "minimum", "maximum")
MAX_STRIDE = 3  # of the hardware [V]
MAX_CHAIN = 4  # operations in one chain of U85 [V]
MAX_CHAIN_INPUTS = 3  # feature maps that a chain reads from memory [V]


def operations_of(graph: Graph, configuration: Configuration) -> list[NpuOp]:
    """The operations in the order in which they run.

    Raises:
        InputError: an operator that this cost model does not know, named with its line in the user's code.
    """
    reader = _Reader(graph, configuration)
    for node in graph.nodes:
        reader.read(node)
    ordered = _ordered(reader)
    connect(ordered)
    if configuration.is_u85:
        ordered = _chained(ordered)
        connect(ordered)
    _choose_formats(ordered)
    return ordered


class _Reader:
    """Walks the graph once, in its own order, and keeps which feature map stands for which tensor."""

    def __init__(self, graph: Graph, configuration: Configuration) -> None:
        self.graph, self.configuration = graph, configuration
        self.maps: dict[TensorRef, FeatureMap] = {}
        self.operations: list[NpuOp] = []
        self.skip: set[str] = set()
        self.parts: dict[int, list[NpuOp]] = {}
        for ref in graph.inputs:
            self.maps[ref] = FeatureMap(name=str(ref), shape=_hwc(graph.tensors[ref].shape), is_input=True, linear=True)

    def read(self, node: Node) -> None:
        """Adds what one node becomes."""
        if node.name in self.skip:
            return
        read = _READERS.get(node.op)
        if read is None:
            where = f" ({node.source})" if node.source else ""
            raise InputError(f"node {node.name!r}{where}: the Ethos-U cost model does not know {node.op!r}")
        read(self, node)

    def emit(
        self, node: Node, kind: OpKind, inputs: list[FeatureMap], window: Window = UNIT, **details: object
    ) -> NpuOp:
        """An operation with the activation that follows it."""
        last, activation = self._follow(node)
        shape = _hwc(self.graph.tensors[last.outputs[0]].shape)
        output = FeatureMap(name=str(last.outputs[0]), shape=shape, is_output=last.outputs[0] in self.graph.outputs)
        output.linear = output.is_output
        op = NpuOp(
            name=output.name,
            kind=kind,
            type=node.op,
            inputs=inputs,
            output=output,
            shape=shape,
            input_shapes=[tensor.shape for tensor in inputs],
            window=_hardware_window(node, window, shape),
            activation=activation,
            **details,  # type: ignore[arg-type]
        )
        self.maps[last.outputs[0]] = output
        self.parts.setdefault(id(output), []).append(op)
        self.operations.append(op)
        return op

    def _follow(self, node: Node) -> tuple[Node, str]:
        """The batch norm and activation behind a node; the pair (last node, activation's kind)."""
        last, activation = node, ""
        while True:
            follower = self.graph.sole_consumer(last.outputs[0])
            if follower is None or activation:
                return last, activation
            if follower.op == "batch_norm" and self.graph.is_layer(node):
                pass
            elif follower.op in CLIPS:
                activation = "clip"
            elif follower.op in TABLES:
                activation = "table"
            else:
                return last, activation
            self.skip.add(follower.name)
            last = follower


def _hwc(shape: tuple[int | None, ...]) -> Hwc:
    known = [int(size or 1) for size in shape]
    if len(known) == 4:
        return known[2], known[3], known[1]
    return 1, math.prod(known[:-1]), known[-1]


def _hardware_window(node: Node, window: Window, shape: Hwc) -> Window:
    """Where an axis has one result, its stride is 1; elsewhere the hardware strides by 3 at most.

    Raises:
        InputError: a longer stride, which the compiler takes apart in a way that is not modelled.
    """
    stride = tuple(1 if shape[axis] == 1 else window.stride[axis] for axis in (0, 1))
    if max(stride) > MAX_STRIDE:
        raise InputError(f"node {node.name!r}: the Ethos-U cost model knows strides up to {MAX_STRIDE}, not {stride}")
    return dataclasses.replace(window, stride=(stride[0], stride[1]))


def _conv(reader: _Reader, node: Node) -> None:
    graph = reader.graph
    source = reader.maps[node.tensors[0]]
    codes, _ = weight_codes(graph, node)
    groups, channels = node.attributes["groups"], source.shape[2]
    depthwise = groups > 1 and groups == channels
    if groups > 1 and not depthwise:
        raise InputError(f"node {node.name!r}: the Ethos-U cost model does not know {groups} groups of {channels}")
    window = Window(
        kernel=(codes.shape[2], codes.shape[3]),
        stride=tuple(node.attributes["stride"]),
        dilation=tuple(node.attributes["dilation"]),
    )
    reader.emit(
        node,
        OpKind.DEPTHWISE if depthwise else OpKind.CONVOLUTION,
        [source],
        window=window,
        weights=codes.transpose(0, 2, 3, 1),
        macs=graph.macs(node),
    )


def _linear(reader: _Reader, node: Node) -> None:
    codes, _ = weight_codes(reader.graph, node)
    source = reader.maps[node.tensors[0]]
    reader.emit(node, OpKind.CONVOLUTION, [source], weights=codes[:, None, None, :], macs=reader.graph.macs(node))


def _pool(reader: _Reader, node: Node) -> None:
    source = reader.maps[node.tensors[0]]
    result = _hwc(reader.graph.tensors[node.outputs[0]].shape)
    if node.op == "adaptive_avg_pool2d":
        kernel = stride = (source.shape[0] // result[0], source.shape[1] // result[1])
    else:
        kernel = tuple(node.attributes["kernel_size"])
        stride = tuple(node.attributes["stride"] or kernel)
    reader.emit(node, OpKind.POOLING, [source], Window(kernel=kernel, stride=stride))


def _binary(reader: _Reader, node: Node) -> None:
    reader.emit(node, OpKind.ELEMENTWISE, [reader.maps[ref] for ref in node.tensors])


def _activation(reader: _Reader, node: Node) -> None:
    """One that could not be fused: a pass through the pooling unit."""
    op = reader.emit(node, OpKind.POOLING, [reader.maps[node.tensors[0]]])
    op.activation = "clip" if node.op in CLIPS else "table"


def _view(reader: _Reader, node: Node) -> None:
    """The same bytes under another shape; channels last without bricks, where rows and channels change."""
    source, shape = reader.maps[node.tensors[0]], _hwc(reader.graph.tensors[node.outputs[0]].shape)
    if shape[1:] != source.shape[1:]:
        source.linear = True
    seen = dataclasses.replace(source, shape=shape) if shape != source.shape else source
    if node.outputs[0] in reader.graph.outputs:
        source.name = seen.name = str(node.outputs[0])
        seen.is_output = source.is_output = True
        for op in reader.parts.get(id(source), []):
            op.name = source.name
    reader.maps[node.outputs[0]] = seen
    if seen is not source:
        reader.parts[id(seen)] = reader.parts.get(id(source), [])
        for op in reader.parts[id(seen)]:
            if op.output is source:
                op.output = seen


def _upsample(reader: _Reader, node: Node) -> None:
    """U85 has a unit for it; U55 and U65 read each input twice in an average pool of one tap."""
    source = reader.maps[node.tensors[0]]
    result = _hwc(reader.graph.tensors[node.outputs[0]].shape)
    factor = result[0] // source.shape[0]
    if (source.shape[0] * factor, source.shape[1] * factor) != result[:2]:
        raise InputError(f"node {node.name!r}: the Ethos-U cost model knows whole upsampling factors only")
    if not reader.configuration.is_u85 and factor != 2:
        raise InputError(f"node {node.name!r}: the Ethos-U cost model knows an upsampling by 2, not by {factor}")
    kind = OpKind.RESIZE if reader.configuration.is_u85 else OpKind.POOLING
    op = reader.emit(node, kind, [source], upscale=1 if reader.configuration.is_u85 else factor)
    op.type = "resize"


def _cat(reader: _Reader, node: Node) -> None:
    """Each operand's operation writes its part; a copy where the operand is read elsewhere, too."""
    graph = reader.graph
    if node.attributes["dim"] % len(graph.tensors[node.outputs[0]].shape) != 1:
        raise InputError(f"node {node.name!r}: the Ethos-U cost model knows concatenations of channels only")
    shape = _hwc(graph.tensors[node.outputs[0]].shape)
    joined = FeatureMap(name=str(node.outputs[0]), shape=shape, is_output=node.outputs[0] in graph.outputs)
    joined.linear = joined.is_output
    parts, offset = [], 0
    for ref in node.tensors:
        part = reader.maps[ref]
        joined.linear |= offset % BRICK != 0
        offset += part.shape[2]
        writers = reader.parts.get(id(part), [])
        if graph.sole_consumer(ref) is None or not writers or len(writers) > 1:
            copy = NpuOp(
                name=joined.name,
                kind=OpKind.POOLING,
                type="copy",
                inputs=[part],
                output=joined,
                shape=part.shape,
                input_shapes=[part.shape],
            )
            reader.operations.append(copy)
            writers = [copy]
        for writer in writers:
            writer.output, writer.name = joined, joined.name
        parts += writers
    reader.maps[node.outputs[0]] = joined
    reader.parts[id(joined)] = parts


_READERS: dict[str, Callable[[_Reader, Node], None]] = {
    "conv2d": _conv,
    "linear": _linear,
    "cat": _cat,
    "upsample_nearest2d": _upsample,
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"), _pool),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys((*CLIPS, *TABLES), _activation),
    **dict.fromkeys(VIEWS, _view),
}


def _ordered(reader: _Reader) -> list[NpuOp]:
    """Depth first from the results: the last operand's operations run first, parts of a concatenation in order."""
    writers: dict[int, list[NpuOp]] = {}
    for op in reader.operations:
        writers.setdefault(id(op.output), []).append(op)
    ends = [op for ref in reversed(reader.graph.outputs) for op in writers.get(id(reader.maps[ref]), [])]
    done: set[int] = set()
    order: list[NpuOp] = []
    stack: list[tuple[bool, NpuOp]] = [(False, op) for op in reversed(ends)]
    while stack:
        ready, op = stack.pop()
        if ready:
            order.append(op)
        elif id(op) not in done:
            done.add(id(op))
            stack.append((True, op))
            for tensor in op.inputs:
                stack += [(False, writer) for writer in reversed(writers.get(id(tensor), []))]
    return order


def _chained(operations: list[NpuOp]) -> list[NpuOp]:
    """U85: an elementwise operation joins the one right before it, if that alone makes its operand."""
    kept: list[NpuOp] = []
    for op in operations:
        head = kept[-1] if kept else None
        if head is not None and op.kind is OpKind.ELEMENTWISE and _can_chain(head, op):
            head.chained.append(op)
        else:
            kept.append(op)
    return kept


def _can_chain(head: NpuOp, op: NpuOp) -> bool:
    made = head.written
    outside = len(head.read) + sum(tensor is not made for tensor in op.inputs)
    return (
        head.kind is not OpKind.RESIZE
        and any(tensor is made for tensor in op.inputs)
        and made.consumers == [op]
        and len(made.producers) == 1
        and not made.is_output
        and head.last.shape == made.shape == op.shape
        and len(head.chained) + 2 <= MAX_CHAIN
        and outside <= MAX_CHAIN_INPUTS
    )


def _choose_formats(operations: list[NpuOp]) -> None:
    """Bricks wherever every reader and writer sees the same columns and channels and nobody else reads it."""
    for op in operations:
        for tensor, shape in zip(op.inputs, op.input_shapes, strict=True):
            if shape[1:] != tensor.shape[1:]:
                tensor.linear = True
