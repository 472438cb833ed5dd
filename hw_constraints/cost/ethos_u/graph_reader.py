"""Reads a graph node by node: what each becomes on the accelerator, with batch norms and activations fused.

What the model does not know is left out and listed; everything around it is still reckoned.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from bitwright.hw_constraints.cost.ethos_u.figures import BRICK, Configuration, Hwc
from bitwright.hw_constraints.cost.ethos_u.operations import UNIT, FeatureMap, NpuOp, OpKind, Window
from bitwright.hw_constraints.cost.ethos_u.weight_codes import WeightHistogram, weight_histograms
from bitwright.quant.graph import Graph, Node, TensorRef

CLIPS = ("relu", "hardtanh", "clamp", "relu6")
TABLES = ("sigmoid", "tanh", "hardswish", "leaky_relu", "hardsigmoid", "elu", "gelu")
VIEWS = ("flatten", "view", "reshape", "dropout", "squeeze", "unsqueeze", "contiguous", "alias")
BINARY = ("add", "sub", "mul", "minimum", "maximum")
POOLS = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")
OF_IMAGES = ("conv2d", "upsample_nearest2d", *POOLS)
GATE = ".gate"  # behind the name of a SiLU's result: that of its lookup table's
MAX_STRIDE, MAX_DILATION = 3, 2  # of the hardware [V]


@dataclass(frozen=True)
class Unmodelled:
    """A node that is not reckoned with, and why; its operands are handed out, its results come in."""

    node: Node
    reason: str

    def __str__(self) -> str:
        where = f" ({self.node.source})" if self.node.source else ""
        return f"{self.node.name} [{self.node.op}]{where}: {self.reason}"


class UnmodelledError(Exception):
    """Why a node is not reckoned with."""


class GraphReader:
    """Walks the graph once, in its own order, and keeps which feature map stands for which tensor.

    Args:
        graph: the network.
        configuration: of the accelerator.
        elsewhere: names of the nodes that the accelerator does not run.
    """

    def __init__(self, graph: Graph, configuration: Configuration, elsewhere: Collection[str] = ()) -> None:
        self.graph, self.configuration, self.elsewhere = graph, configuration, frozenset(elsewhere)
        self.maps: dict[TensorRef, FeatureMap] = {}
        self.operations: list[NpuOp] = []
        self.skip: set[str] = set()
        self.parts: dict[int, list[NpuOp]] = {}
        self.unmodelled: list[Unmodelled] = []
        for ref in graph.inputs:
            self.maps[ref] = FeatureMap(name=str(ref), shape=_hwc(graph.tensors[ref].shape), is_input=True, linear=True)

    def read(self, node: Node) -> None:
        """Adds what one node becomes."""
        if node.name in self.skip:
            return
        try:
            self._check(node)
            _READERS[node.op](self, node)
        except UnmodelledError as error:
            self._leave_out(node, str(error))

    def _check(self, node: Node) -> None:
        if node.name in self.elsewhere:
            raise UnmodelledError("the accelerator does not run it")
        if node.op not in _READERS:
            raise UnmodelledError(f"the model of the Ethos-U does not know {node.op!r}")
        result = self.graph.tensors[node.outputs[0]]
        if not result.is_floating:
            raise UnmodelledError(f"its result is of type {result.dtype}")
        if len(result.shape) == 4 and result.shape[0] != 1:
            raise UnmodelledError(f"a batch of {result.shape[0]}; 1 is modelled")
        if node.op in OF_IMAGES and len(result.shape) != 4:
            raise UnmodelledError(f"its result has {len(result.shape)} axes; 4 are modelled")
        if node.op == "linear" and len(result.shape) > 3:
            raise UnmodelledError(f"a linear layer over {len(result.shape)} axes; up to 3 are modelled")

    def _leave_out(self, node: Node, reason: str) -> None:
        """What is not modelled reads and writes whole tensors, channels last, as the application does."""
        self.unmodelled.append(Unmodelled(node, reason))
        for ref in node.tensors:
            if ref in self.maps:
                self.maps[ref].is_output = self.maps[ref].linear = True
        for ref in node.outputs:
            shape = _hwc(self.graph.tensors[ref].shape)
            self.maps[ref] = FeatureMap(name=str(ref), shape=shape, is_input=True, linear=True)

    def operands(self, node: Node) -> list[FeatureMap]:
        """The feature maps that a node reads.

        Raises:
            UnmodelledError: one is a constant tensor, or one's last axis is not the other's.
        """
        if any(ref not in self.maps for ref in node.tensors):
            raise UnmodelledError("an operand is a constant tensor")
        shapes = [self.graph.tensors[ref].shape for ref in node.tensors]
        if len({len(shape) for shape in shapes if shape}) > 1:
            raise UnmodelledError(f"operands of {' and '.join(str(len(shape)) for shape in shapes)} axes")
        return [self.maps[ref] for ref in node.tensors]

    def source(self, node: Node) -> FeatureMap:
        """The feature map that a layer reads.

        Raises:
            UnmodelledError: it is a constant, or the weights are computed by the network.
        """
        first, *others = node.tensors
        if first not in self.maps or any(ref in self.maps for ref in others):
            raise UnmodelledError("its input is a constant, or its weights are computed")
        return self.maps[first]

    def weights(self, node: Node, groups: int = 1) -> tuple[WeightHistogram, ...]:
        """The codes of a layer's weights, by group.

        Raises:
            UnmodelledError: the graph was made without values, on which their encoded size hangs.
        """
        try:
            return weight_histograms(self.graph, node, groups)
        except LookupError as error:
            raise UnmodelledError(str(error.args[0])) from error

    def emit(
        self, node: Node, kind: OpKind, inputs: list[FeatureMap], window: Window = UNIT, **details: object
    ) -> NpuOp:
        """An operation with the activation that follows it."""
        shape = _hwc(self.graph.tensors[node.outputs[0]].shape)
        window = _hardware_window(window, shape)
        last, activation = self._follow(node)
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
            window=window,
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
            if follower is None or activation or follower.name in self.elsewhere:
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
    """NCHW by its names; of any other shape the last axis is the channels, all others together the columns."""
    known = [int(size or 1) for size in shape] or [1]
    if len(known) == 4:
        return known[2], known[3], known[1]
    return 1, math.prod(known[:-1]), known[-1]


def _hardware_window(window: Window, shape: Hwc) -> Window:
    """Where an axis has one result, its stride is 1; elsewhere the hardware strides by 3 at most.

    Raises:
        UnmodelledError: a longer stride or dilation, which the compiler takes apart.
    """
    if max(window.dilation) > MAX_DILATION:
        raise UnmodelledError(f"the compiler takes dilations of {window.dilation} apart; 1 and 2 are modelled")
    stride = tuple(1 if shape[axis] == 1 else window.stride[axis] for axis in (0, 1))
    if max(stride) > MAX_STRIDE:
        raise UnmodelledError(f"the compiler takes strides of {stride} apart; those up to {MAX_STRIDE} are modelled")
    return dataclasses.replace(window, stride=(stride[0], stride[1]))


def _conv(reader: GraphReader, node: Node) -> None:
    graph = reader.graph
    source = reader.source(node)
    groups, channels = node.attributes["groups"], source.shape[2]
    depthwise = groups > 1 and groups == channels
    weights = reader.weights(node, groups if groups > 1 and not depthwise else 1)
    window = Window(
        kernel=weights[0].shape[1:3],
        stride=tuple(node.attributes["stride"]),
        dilation=tuple(node.attributes["dilation"]),
    )
    if groups > 1 and not depthwise:
        _grouped_conv(reader, node, source, window, weights)
        return
    reader.emit(
        node,
        OpKind.DEPTHWISE if depthwise else OpKind.CONVOLUTION,
        [source],
        window=window,
        weights=weights[0],
        macs=graph.macs(node),
    )


def _grouped_conv(
    reader: GraphReader, node: Node, source: FeatureMap, window: Window, weights: tuple[WeightHistogram, ...]
) -> None:
    """One convolution a group, each on its part of the channels; an activation behind them stays apart."""
    groups = node.attributes["groups"]
    shape = _hwc(reader.graph.tensors[node.outputs[0]].shape)
    window = _hardware_window(window, shape)
    read, written = source.shape[2] // groups, shape[2] // groups
    joined = FeatureMap(name=str(node.outputs[0]), shape=shape, is_output=node.outputs[0] in reader.graph.outputs)
    joined.linear = joined.is_output or written % BRICK != 0
    parts = [
        NpuOp(
            name=joined.name,
            kind=OpKind.CONVOLUTION,
            type=node.op,
            inputs=[source],
            output=joined,
            shape=(shape[0], shape[1], written),
            input_shapes=[(source.shape[0], source.shape[1], read)],
            window=window,
            weights=part,
            macs=reader.graph.macs(node) // groups,
        )
        for part in weights
    ]
    reader.operations += parts
    reader.maps[node.outputs[0]] = joined
    reader.parts[id(joined)] = parts


def _linear(reader: GraphReader, node: Node) -> None:
    source = reader.source(node)
    (weights,) = reader.weights(node)
    reader.emit(node, OpKind.CONVOLUTION, [source], weights=weights, macs=reader.graph.macs(node))


def _pool(reader: GraphReader, node: Node) -> None:
    source = reader.source(node)
    result = _hwc(reader.graph.tensors[node.outputs[0]].shape)
    if node.op == "adaptive_avg_pool2d":
        if source.shape[0] % result[0] or source.shape[1] % result[1]:
            raise UnmodelledError(f"windows of several sizes, from {source.shape[:2]} to {result[:2]}")
        kernel = stride = (source.shape[0] // result[0], source.shape[1] // result[1])
    else:
        kernel = tuple(node.attributes["kernel_size"])
        stride = tuple(node.attributes["stride"] or kernel)
    reader.emit(node, OpKind.POOLING, [source], Window(kernel=kernel, stride=stride))


def _binary(reader: GraphReader, node: Node) -> None:
    reader.emit(node, OpKind.ELEMENTWISE, reader.operands(node))


def _activation(reader: GraphReader, node: Node) -> None:
    """One that could not be fused: a pass through the pooling unit."""
    reader.emit(node, OpKind.POOLING, [reader.source(node)], is_table=node.op in TABLES)


def _silu(reader: GraphReader, node: Node) -> None:
    """X · sigmoid(x), as TensorFlow Lite says it: a lookup table, then a product."""
    source = reader.source(node)
    gate = FeatureMap(name=f"{node.outputs[0]}{GATE}", shape=source.shape)
    reader.operations.append(
        NpuOp(
            name=gate.name,
            kind=OpKind.POOLING,
            type="sigmoid",
            inputs=[source],
            output=gate,
            shape=source.shape,
            input_shapes=[source.shape],
            is_table=True,
        )
    )
    op = reader.emit(node, OpKind.ELEMENTWISE, [source, gate])
    op.type = "mul"


def _view(reader: GraphReader, node: Node) -> None:
    """The same bytes under another shape; channels last without bricks, where rows and channels change."""
    graph = reader.graph
    (source,) = reader.operands(node)
    before, after = graph.tensors[node.tensors[0]].shape, graph.tensors[node.outputs[0]].shape
    shape = _hwc(after)
    if before != after and any(len(each) == 4 and math.prod(_hwc(each)[:2]) > 1 for each in (before, after)):
        raise UnmodelledError("channels and positions trade places, which moves data where channels lie last")
    if shape[1:] != source.shape[1:]:
        source.linear = True
    seen = dataclasses.replace(source, shape=shape) if shape != source.shape else source
    if node.outputs[0] in graph.outputs:
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


def _upsample(reader: GraphReader, node: Node) -> None:
    """U85 has a unit for it; U55 and U65 read each input twice in an average pool of one tap."""
    source = reader.source(node)
    result = _hwc(reader.graph.tensors[node.outputs[0]].shape)
    factor = result[0] // source.shape[0]
    if (source.shape[0] * factor, source.shape[1] * factor) != result[:2]:
        raise UnmodelledError("an enlargement by no whole factor")
    if not reader.configuration.is_u85 and factor != 2:
        raise UnmodelledError(f"an enlargement by {factor}; by 2 is modelled")
    kind = OpKind.RESIZE if reader.configuration.is_u85 else OpKind.POOLING
    op = reader.emit(node, kind, [source], upscale=1 if reader.configuration.is_u85 else factor)
    op.type = "resize"


def _cat(reader: GraphReader, node: Node) -> None:
    """Each operand's operation writes its part; a copy where the operand is read elsewhere, too."""
    graph = reader.graph
    rank = len(graph.tensors[node.outputs[0]].shape)
    if node.attributes["dim"] % rank != (1 if rank == 4 else rank - 1):
        raise UnmodelledError("a concatenation of something else than channels")
    operands = reader.operands(node)
    shape = _hwc(graph.tensors[node.outputs[0]].shape)
    joined = FeatureMap(name=str(node.outputs[0]), shape=shape, is_output=node.outputs[0] in graph.outputs)
    joined.linear = joined.is_output
    parts, offset = [], 0
    for ref, part in zip(node.tensors, operands, strict=True):
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


_READERS: dict[str, Callable[[GraphReader, Node], None]] = {
    "conv2d": _conv,
    "linear": _linear,
    "cat": _cat,
    "silu": _silu,
    "upsample_nearest2d": _upsample,
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys((*CLIPS, *TABLES), _activation),
    **dict.fromkeys(VIEWS, _view),
}
