"""Arithmetic of two tensors, or of a tensor and a number, in TensorFlow Lite."""

from __future__ import annotations

from bitwright.quant.export.tflite_builder import Step, TfliteBuilder
from bitwright.quant.export.tflite_layout import Grid, Layout, arranged
from bitwright.quant.export.tflite_translators.registry import fused, translates, unsupported

_BINARY = {"add": "ADD", "sub": "SUB", "mul": "MUL"}
_LARGEST_CODE = 127
_REAL = {"div": ("DIV", "DivOptions"), "pow": ("POW", "PowOptions")}
_COMPARE = {"eq": "EQUAL", "ne": "NOT_EQUAL", "gt": "GREATER", "ge": "GREATER_EQUAL", "lt": "LESS", "le": "LESS_EQUAL"}


@translates(*_BINARY)
def _binary(b: TfliteBuilder, step: Step) -> None:
    if step.node.attributes.get("alpha", 1) != 1:
        raise unsupported(step.node, "alpha other than 1")
    op = _BINARY[step.node.op]
    inputs, layout = _operands(b, step)
    b.emit(op, inputs, b.result(step, layout), f"{op.capitalize()}Options", fusedActivationFunction=fused(step))


@translates("maximum", "minimum")
def _extreme(b: TfliteBuilder, step: Step) -> None:
    """All on one grid."""
    inputs, layout = _operands(b, step)
    output = b.result(step, layout, grid=b.operand_grid(step))
    b.emit(step.node.op.upper(), inputs, output, "MaximumMinimumOptions")


@translates(*_REAL, in_codes=False)
def _real(b: TfliteBuilder, step: Step) -> None:
    if step.node.attributes.get("rounding_mode"):
        raise unsupported(step.node, "rounding_mode")
    inputs, layout = _operands(b, step, "exponent" if step.node.op == "pow" else "other")
    op, table = _REAL[step.node.op]
    b.emit(op, inputs, b.result(step, layout), table)


@translates(*_COMPARE, in_codes=False)
def _compare(b: TfliteBuilder, step: Step) -> None:
    inputs, layout = _operands(b, step)
    b.emit(_COMPARE[step.node.op], inputs, b.result(step, layout))


@translates("where", in_codes=False)
def _where(b: TfliteBuilder, step: Step) -> None:
    if len(step.node.tensors) != 3:
        raise unsupported(step.node, "a number as operand")
    b.emit("SELECT_V2", [b.operand(step, i) for i in range(3)], b.result(step), "SelectV2Options")


def _operands(b: TfliteBuilder, step: Step, argument: str = "other") -> tuple[list[int], Layout]:
    """Both operands in one layout; channels stand last only where all have as many axes, or are one number."""
    node, shape = step.node, b.shape(step.results[0])
    refs = [ref for ref in node.inputs[:2] if ref is not None]
    ranks = {len(b.shape(ref)) for ref in refs if b.shape(ref) and b.graph.tensors[ref].elements > 1}
    layout = b.first_layout(step) if ranks <= {len(shape)} else Layout.PLAIN
    values = []
    for position, name in ((0, "self"), (1, argument)):
        ref = node.inputs[position] if position < len(node.inputs) else None
        if ref is not None:
            own = layout if len(b.shape(ref)) == len(shape) else Layout.PLAIN
            values.append(b.operand(step, position, own))
        else:
            number = float(node.attributes[name])
            values.append(b.number(number, len(arranged(shape, layout)), _grid_of(number) if step.in_codes else None))
    return values, layout


def _grid_of(number: float) -> Grid:
    """A grid on which a number is exact: its largest code, or zero."""
    return Grid(abs(number) / _LARGEST_CODE or 1.0, 0)
