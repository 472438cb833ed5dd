"""Recurrent layers in ONNX, one operator for each layer of theirs.

ONNX has the gates in another order (LSTM: i o f g for torch's i f g o; GRU: z r n for r z n), directions as an axis of
the weights, and time first. Rows are brought into order in the file, so that weights may come as codes.
"""

from __future__ import annotations

from bitwright.quant.export.onnx_builder import OnnxBuilder
from bitwright.quant.export.onnx_translators.registry import translates, unsupported
from bitwright.quant.graph import Node

_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
_STATES = {"lstm": 2, "gru": 1}


@translates("lstm", "gru")
def _recurrent(b: OnnxBuilder, node: Node) -> None:
    given, out = node.attributes, b.result(node)
    states, directions = _STATES[node.op], 2 if given["bidirectional"] else 1
    each, layers = (4 if given["has_biases"] else 2), given["num_layers"]
    first = 1 + states  # of the parameters among the operands
    if "batch_first" not in given or len(node.inputs) != first + each * directions * layers:
        raise unsupported(node, "packed sequences or projected states")
    value = b.operand(node, 0)
    if given["batch_first"]:
        value = b.emit("Transpose", [value], b.spare(out), perm=[1, 0, 2])
    initial = [_by_layer(b, node, 1 + state, layers, directions) for state in range(states)]
    last: list[list[str]] = [[] for _ in range(states)]
    hidden = b.shape(node.inputs[1])[2] if node.inputs[1] is not None else 0
    for layer in range(layers):
        places = [first + each * (layer * directions + direction) for direction in range(directions)]
        operands = [value, *_parameters(b, node, places, each), "", *(parts[layer] for parts in initial)]
        made = [b.spare(out) for _ in range(1 + states)]
        way = "bidirectional" if directions == 2 else "forward"
        extra = {"linear_before_reset": 1} if node.op == "gru" else {}
        b.emit(node.op.upper(), operands, made, hidden_size=hidden, direction=way, **extra)
        value = _joined_directions(b, out, made[0], b.shape(node.outputs[0]), batch_first=given["batch_first"])
        for state in range(states):
            last[state].append(made[1 + state])
    if given["batch_first"]:
        b.emit("Transpose", [value], out, perm=[1, 0, 2])
    else:
        b.emit("Identity", [value], out)
    for state, parts in enumerate(last):
        b.emit("Concat", parts, b.result(node, 1 + state), axis=0)


@translates("lstm_cell", "gru_cell")
def _cell(b: OnnxBuilder, node: Node) -> None:
    """A layer of one step; the axes of time and of directions come and go."""
    kind, out = node.op.removesuffix("_cell"), b.result(node)
    states = _STATES[kind]
    shape = b.shape(node.inputs[1]) if node.inputs[1] is not None else ()
    if len(shape) != 2:
        raise unsupported(node, "states without a batch")
    biases = 4 if len([ref for ref in node.inputs[1 + states :] if ref is not None]) == 4 else 2
    front = [b.emit("Unsqueeze", [b.operand(node, i), b.constant(out, [0])], b.spare(out)) for i in range(1 + states)]
    operands = [front[0], *_parameters(b, node, [1 + states], biases), "", *front[1:]]
    made = [b.spare(out) for _ in range(states)]
    extra = {"linear_before_reset": 1} if kind == "gru" else {}
    b.emit(kind.upper(), operands, ["", *made], hidden_size=shape[1], **extra)
    for state, value in enumerate(made):
        b.emit("Reshape", [value, b.constant(out, list(shape))], b.result(node, state))


def _by_layer(b: OnnxBuilder, node: Node, position: int, layers: int, directions: int) -> list[str]:
    """A state `[layers * directions, B, H]`, one `[directions, B, H]` for each layer."""
    name = b.operand(node, position)
    if layers == 1:
        return [name]
    out = b.result(node)
    parts = [b.spare(out) for _ in range(layers)]
    b.emit("Split", [name, b.constant(out, [directions] * layers)], parts, axis=0)
    return parts


def _parameters(b: OnnxBuilder, node: Node, places: list[int], each: int) -> list[str]:
    """W `[D, G H, I]`, R `[D, G H, H]` and, where there are some, both biases `[D, 2 G H]`."""
    out = b.result(node)

    def stacked(offsets: tuple[int, ...]) -> str:
        directions = []
        for place in places:
            rows = [_reordered(b, node, place + offset) for offset in offsets]
            joined = rows[0] if len(rows) == 1 else b.emit("Concat", rows, b.spare(out), axis=0)
            directions.append(b.emit("Unsqueeze", [joined, b.constant(out, [0])], b.spare(out)))
        return directions[0] if len(directions) == 1 else b.emit("Concat", directions, b.spare(out), axis=0)

    return [stacked((0,)), stacked((1,)), stacked((2, 3)) if each == 4 else ""]


def _reordered(b: OnnxBuilder, node: Node, position: int) -> str:
    """A parameter with its gates in ONNX's order."""
    out, order = b.result(node), _GATES[node.op.removesuffix("_cell")]
    parts = [b.spare(out) for _ in order]
    b.emit("Split", [b.operand(node, position)], parts, axis=0, num_outputs=len(order))
    return b.emit("Concat", [parts[gate] for gate in order], b.spare(out), axis=0)


def _joined_directions(b: OnnxBuilder, out: str, made: str, shape: tuple[int, ...], *, batch_first: bool) -> str:
    """`[T, D, B, H]` as `[T, B, D H]`."""
    batch, time = shape[:2] if batch_first else shape[1::-1]
    moved = b.emit("Transpose", [made], b.spare(out), perm=[0, 2, 1, 3])
    return b.emit("Reshape", [moved, b.constant(out, [time, batch, shape[2]])], b.spare(out))
