"""Functions of one number, and the softmax, in TensorFlow Lite.

The specification prescribes the results' grids of some: [0, 1) has 256 steps, (-1, 1) has them, too.
"""

from __future__ import annotations

from bitwright.quant.export.tflite_builder import Step, TfliteBuilder
from bitwright.quant.export.tflite_file import Array
from bitwright.quant.export.tflite_layout import Grid, Layout, arranged, arranged_axis
from bitwright.quant.export.tflite_translators.registry import bounds, clamp_operator, translates, unsupported

UNIT = Grid(1 / 256, -128)
SIGNED_UNIT = Grid(1 / 128, 0)
LOGARITHM = Grid(16 / 256, 127)
_UNARY = {"hardswish": "HARD_SWISH", "elu": "ELU"}
_ON_REAL_VALUES = {
    "exp": "EXP", "log": "LOG", "sqrt": "SQRT", "rsqrt": "RSQRT", "abs": "ABS", "neg": "NEG", "sin": "SIN",
    "cos": "COS", "floor": "FLOOR", "ceil": "CEIL", "square": "SQUARE", "logical_not": "LOGICAL_NOT",
}  # fmt: skip


@translates("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max")
def _clamp(b: TfliteBuilder, step: Step) -> None:
    """As one operator where there is one, else a MAXIMUM and a MINIMUM on the result's grid."""
    node, layout, op = step.node, b.first_layout(step), clamp_operator(step.node)
    interval = bounds(node)
    if interval is None or step.followers:
        raise unsupported(node, "tensors as bounds, or something fused behind it")
    if op is not None:
        b.emit(op, [b.operand(step, 0, layout)], b.result(step, layout))
        return
    value, grid, shape = b.operand(step, 0, layout), b.operand_grid(step), b.shape(node.tensors[0])
    steps = [(name, bound) for name, bound in zip(("MAXIMUM", "MINIMUM"), interval, strict=True) if abs(bound) < 1e38]
    for position, (name, bound) in enumerate(steps):
        last = position == len(steps) - 1
        made = b.result(step, layout, grid=grid) if last else b.inner(step, _like(b, step, layout), grid)
        value = b.emit(name, [value, b.number(bound, len(shape), grid)], made, "MaximumMinimumOptions")


def _like(b: TfliteBuilder, step: Step, layout: Layout) -> tuple[int, ...]:
    return arranged(b.shape(step.results[0]), layout)


@translates("sigmoid")
def _sigmoid(b: TfliteBuilder, step: Step) -> None:
    layout = b.first_layout(step)
    b.emit("LOGISTIC", [b.operand(step, 0, layout)], b.result(step, layout, grid=UNIT))


@translates("tanh")
def _tanh(b: TfliteBuilder, step: Step) -> None:
    layout = b.first_layout(step)
    b.emit("TANH", [b.operand(step, 0, layout)], b.result(step, layout, grid=SIGNED_UNIT))


@translates(*_UNARY)
def _unary(b: TfliteBuilder, step: Step) -> None:
    layout, attributes = b.first_layout(step), step.node.attributes
    if any(attributes.get(name, 1) != 1 for name in ("alpha", "scale", "input_scale")):
        raise unsupported(step.node, "a factor other than 1")
    b.emit(_UNARY[step.node.op], [b.operand(step, 0, layout)], b.result(step, layout))


@translates(*_ON_REAL_VALUES, in_codes=False)
def _real(b: TfliteBuilder, step: Step) -> None:
    layout = b.first_layout(step)
    b.emit(_ON_REAL_VALUES[step.node.op], [b.operand(step, 0, layout)], b.result(step, layout))


@translates("gelu")
def _gelu(b: TfliteBuilder, step: Step) -> None:
    layout, approximate = b.first_layout(step), step.node.attributes["approximate"] == "tanh"
    b.emit("GELU", [b.operand(step, 0, layout)], b.result(step, layout), "GeluOptions", approximate=approximate)


@translates("leaky_relu")
def _leaky_relu(b: TfliteBuilder, step: Step) -> None:
    layout, slope = b.first_layout(step), float(step.node.attributes["negative_slope"])
    b.emit("LEAKY_RELU", [b.operand(step, 0, layout)], b.result(step, layout), "LeakyReluOptions", alpha=slope)


@translates("prelu")
def _prelu(b: TfliteBuilder, step: Step) -> None:
    """Slopes stand behind the spatial axes, as the channels do."""
    channels = b.shape(step.node.tensors[0])[1]
    rank = len(b.shape(step.node.tensors[0]))

    def arrange(slope: Array) -> Array:
        return slope.reshape(*[1] * (rank - 2), -1).repeat(channels // slope.size, -1)

    slopes = b.weight(step, 1, arrange, 0)
    b.emit("PRELU", [b.operand(step, 0, Layout.CHANNELS_LAST), slopes], b.result(step, Layout.CHANNELS_LAST))


@translates("softmax", "log_softmax")
def _softmax(b: TfliteBuilder, step: Step) -> None:
    """Along the last axis of the file: the last one, or the channels where these stand last."""
    node, rank = step.node, len(b.shape(step.node.tensors[0]))
    axis = int(node.attributes["dim"]) % rank
    layout = Layout.CHANNELS_LAST if axis == 1 and rank > 2 else Layout.PLAIN
    if arranged_axis(axis, rank, layout) != rank - 1:
        raise unsupported(node, f"axis {axis}, which is neither the last one nor that of the channels")
    op, grid = ("SOFTMAX", UNIT) if node.op == "softmax" else ("LOG_SOFTMAX", LOGARITHM)
    options = {"beta": 1.0} if node.op == "softmax" else {}
    table = "SoftmaxOptions" if node.op == "softmax" else "LogSoftmaxOptions"
    b.emit(op, [b.operand(step, 0, layout)], b.result(step, layout, grid=grid), table, **options)


@translates("silu", "hardsigmoid", in_codes=False)
def _composed(b: TfliteBuilder, step: Step) -> None:
    """`x * sigmoid(x)`, and `relu6(x + 3) / 6`."""
    layout = b.first_layout(step)
    x, shape = b.operand(step, 0, layout), _like(b, step, layout)
    if step.node.op == "silu":
        gate = b.emit("LOGISTIC", [x], b.inner(step, shape))
        b.emit("MUL", [x, gate], b.result(step, layout), "MulOptions")
        return
    shifted = b.emit("ADD", [x, b.number(3.0, len(shape))], b.inner(step, shape), "AddOptions")
    gate = b.emit("RELU6", [shifted], b.inner(step, shape))
    b.emit("MUL", [gate, b.number(1 / 6, len(shape))], b.result(step, layout), "MulOptions")
