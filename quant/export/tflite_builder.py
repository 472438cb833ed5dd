"""Writes a quantized network as `.tflite`, operator by operator, keeping every tensor's identity as its name.

A tensor can stand in the file in several forms: as codes or as real values, in PyTorch's order of axes or with the
channels last, which is TensorFlow's. It is made in the form that its operator has; another one is made by QUANTIZE,
DEQUANTIZE or TRANSPOSE where a reader first asks for it. The first form carries the tensor's own name.

Codes are int8, per tensor with a zero point for activations, symmetric per channel for weights (LiteRT's quantization
specification); uint8 codes of a plan are the same numbers less 128.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import described
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.export.tflite_file import Array, TfliteFile
from bitwright.quant.export.tflite_layout import Grid, Layout, arranged, other_layout
from bitwright.quant.fake_quantize import fake_quantize, quantize
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Node, TensorRef
from bitwright.quant.plan import BiasPlan
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel


@dataclass(frozen=True, kw_only=True)
class Step:
    """What becomes one operator: a node, and the activations that are fused behind it.

    Attributes:
        node: the operator.
        followers: the activations.
        in_codes: whether it computes on codes; else on real values.
    """

    node: Node
    followers: tuple[Node, ...]
    in_codes: bool

    @property
    def results(self) -> tuple[TensorRef, ...]:
        """What it makes."""
        return self.followers[-1].outputs if self.followers else self.node.outputs


@dataclass(frozen=True, kw_only=True)
class Translator:
    """How one operator type is written.

    Attributes:
        write: takes the builder and the step.
        in_codes: whether TensorFlow Lite has it on int8 codes.
    """

    write: Callable[[TfliteBuilder, Step], None]
    in_codes: bool


class TfliteBuilder:
    """Walks a quantized network while translators write its operators.

    Attributes:
        graph: what is written.
        file: where to.
        layouts: of each tensor that stands in the file under its own name.
        in_float: steps that the plan has in low precision, and that are written on real values, with why.
    """

    def __init__(self, quantized: QuantizedModel) -> None:
        self.quantized, self.captured = quantized, quantized.captured
        self.graph, self.plan = quantized.captured.graph, quantized.plan
        self.file = TfliteFile()
        self.layouts: dict[str, Layout] = {}
        self.in_float: dict[str, str] = {}
        self._forms: dict[tuple[TensorRef, bool, Layout], int] = {}
        self._constants: dict[tuple[Any, ...], int] = {}
        self._pending: list[tuple[TensorRef, Layout, int]] = []
        self._spares: dict[str, int] = {}

    # --- shapes and qparams ---

    def shape(self, ref: TensorRef) -> tuple[int, ...]:
        """The static shape of a tensor, in PyTorch's order."""
        shape = self.graph.tensors[ref].shape
        if None in shape:
            raise InputError(f"tensor {ref} has a dynamic shape {shape}; .tflite files here have static ones")
        return tuple(int(size or 0) for size in shape)

    def grid(self, ref: TensorRef) -> Grid:
        """The int8 grid of an activation, or of a constant that follows one."""
        qparams = self.quantized.qparams[ref]
        fmt = qparams.spec.format
        assert isinstance(fmt, IntFormat)
        shift = 0 if fmt.signed else 128
        return Grid(float(qparams.scale), int(qparams.zero_point) - shift)

    def has_grid(self, ref: TensorRef) -> bool:
        """Whether a tensor is kept in codes."""
        return ref in self.quantized.qparams

    def first_layout(self, step: Step) -> Layout:
        """The layout in which the largest operand that is no constant stands already."""
        operands = [ref for ref in step.node.tensors if not self.graph.is_constant(ref)]
        if not operands:
            return Layout.PLAIN
        first = max(operands, key=lambda ref: len(self.shape(ref)))
        known = {layout for ref, _, layout in self._forms if ref == first}
        return Layout.CHANNELS_LAST if known == {Layout.CHANNELS_LAST} else Layout.PLAIN

    def take_input(self, ref: TensorRef, layout: Layout) -> int:
        """An argument of the network: codes, where the plan has them."""
        made = self._tensor(ref, layout, self.has_grid(ref))
        self._forms[ref, self.has_grid(ref), layout] = made
        return made

    # --- what translators call ---

    def operand(self, step: Step, position: int, layout: Layout = Layout.PLAIN) -> int:
        """An operand in the form that the step computes with."""
        ref = step.node.inputs[position]
        assert ref is not None
        return self.form(ref, layout, in_codes=step.in_codes, rounded=step.node.name in self.plan.quantized)

    def form(self, ref: TensorRef, layout: Layout, *, in_codes: bool, rounded: bool = True) -> int:
        """A tensor in one form, made on first use.

        Args:
            ref: the tensor.
            layout: of the form.
            in_codes: codes, where the tensor has them.
            rounded: of a constant in real values: those of its codes.
        """
        if self.graph.is_constant(ref):
            return self._constant(ref, layout, in_codes=in_codes, rounded=rounded)
        wanted = in_codes and self.has_grid(ref)
        if (ref, wanted, layout) not in self._forms:
            if self.has_grid(ref) and not wanted:  # whoever reads real values sees those of the codes
                source = self.form(ref, layout, in_codes=True)
                made = self.emit("DEQUANTIZE", [source], self._tensor(ref, layout, False), "DequantizeOptions")
            else:
                made = self._moved(ref, wanted, layout)
            self._forms[ref, wanted, layout] = made
        return self._forms[ref, wanted, layout]

    def result(self, step: Step, layout: Layout = Layout.PLAIN, index: int = 0, grid: Grid | None = None) -> int:
        """The tensor that a step's result is to be written to.

        Args:
            step: the operator.
            layout: in which it comes.
            index: which result.
            grid: that the operator prescribes for it, where that may not be the plan's: the codes are then brought
                to the plan's behind it.
        """
        ref = step.results[index]
        if step.in_codes and grid is not None and grid != self.grid(ref):
            made = self.spare(value_name(ref), self._sizes(ref, layout), grid)
            self._pending.append((ref, layout, made))
            return made
        if not step.in_codes and self.has_grid(ref):
            made = self.spare(value_name(ref), self._sizes(ref, layout), None)
            self._pending.append((ref, layout, made))
            return made
        made = self._tensor(ref, layout, step.in_codes)
        self._forms[ref, step.in_codes, layout] = made
        return made

    def output_form(self, ref: TensorRef) -> int:
        """A result of the network, in the form and layout that it has."""
        if self.graph.is_constant(ref):
            return self.form(ref, Layout.PLAIN, in_codes=self.has_grid(ref))
        known = [layout for other, codes, layout in self._forms if other == ref and codes == self.has_grid(ref)]
        return self._forms[ref, self.has_grid(ref), known[0]]

    def copied(self, ref: TensorRef, source: int, position: int) -> int:
        """A tensor of its own with the same values, as result number `position`."""
        name, grid = f"{value_name(ref)}/out{position}", self.grid(ref) if self.has_grid(ref) else None
        shape = self.file.shape_of(source)
        made = self.spare(name, shape, grid, self.graph.tensors[ref].dtype)
        return self.emit("RESHAPE", [source, self.integers(shape)], made, "ReshapeOptions", newShape=list(shape))

    def finish(self) -> None:
        """Brings results that were written beside the plan's grid to it."""
        for ref, layout, source in self._pending:
            made = self._tensor(ref, layout, True)
            self.file.operator("QUANTIZE", [source], [made], "QuantizeOptions")
            self._forms[ref, True, layout] = made
        self._pending.clear()

    def emit(self, op: str, inputs: Sequence[int], output: int, options: str = "", **fields: Any) -> int:
        """Writes one operator with one result; returns it."""
        self.file.operator(op, inputs, [output], options, **fields)
        return output

    def spare(self, owner: str, shape: Sequence[int], grid: Grid | None, dtype: str = "float32") -> int:
        """An inner tensor of `owner`: codes with `grid`, else of type `dtype`."""
        self._spares[owner] = self._spares.get(owner, -1) + 1
        name = f"{owner}/{self._spares[owner]}"
        if grid is None:
            return self.file.tensor(name, shape, dtype)
        return self.file.tensor(name, shape, "int8", scale=grid.scale, zero_point=grid.zero_point)

    def inner(self, step: Step, shape: Sequence[int], grid: Grid | None = None) -> int:
        """An inner tensor of a step: with the grid of its result if no other is given, or in real values."""
        kept = (grid or self.grid(step.results[0])) if step.in_codes else None
        return self.spare(value_name(step.results[0]), shape, kept)

    def operand_grid(self, step: Step, position: int = 0) -> Grid | None:
        """The grid of an operand; None in real values."""
        ref = step.node.inputs[position]
        return self.grid(ref) if step.in_codes and ref is not None and self.has_grid(ref) else None

    def integers(self, values: Any) -> int:
        """A constant of int32, written once."""
        array = np.asarray(values, np.int32)
        key = ("int32", array.shape, array.tobytes())
        if key not in self._constants:
            name = f"bitwright/integers/{len(self._constants)}"
            self._constants[key] = self.file.tensor(name, array.shape, "int32", data=array)
        return self._constants[key]

    def number(self, value: float, rank: int, grid: Grid | None = None) -> int:
        """One real number as a constant of `rank` axes; with a grid, its code there."""
        key = ("number", value, rank, grid)
        if key not in self._constants:
            name, shape = f"bitwright/number/{len(self._constants)}", (1,) * rank
            if grid is None:
                self._constants[key] = self.file.tensor(name, shape, data=np.full(shape, value))
            else:
                code = np.clip(np.rint(np.float32(value) / np.float32(grid.scale)) + grid.zero_point, -128, 127)
                self._constants[key] = self.file.tensor(
                    name, shape, "int8", data=np.full(shape, code), scale=grid.scale, zero_point=grid.zero_point
                )
        return self._constants[key]

    def weight(self, step: Step, position: int, arrange: Callable[[Array], Array], axis: int) -> int:
        """A layer's weight, its axes arranged as the operator wants them; `axis` is then that of its channels."""
        ref = step.node.inputs[position]
        assert ref is not None
        values = self.captured.values[self.captured.value_refs[ref]]
        name = f"{value_name(ref)}/of/{step.node.name}"
        qparams = self.quantized.qparams.get(ref)
        if not step.in_codes:
            rounded = qparams is not None and step.node.name in self.plan.quantized
            array = arrange((fake_quantize(values, qparams) if rounded and qparams else values).numpy())
            return self.file.tensor(name, array.shape, data=array)
        assert qparams is not None
        array = arrange(quantize(values, qparams).numpy())
        scale = qparams.scale.numpy()
        return self.file.tensor(name, array.shape, "int8", data=array, scale=scale, axis=axis if scale.ndim else 0)

    def bias(self, step: Step) -> int | None:
        """A layer's bias: int32 with scale = scale(input) * scale(weight), or real values; None without one."""
        data, weight, bias = (
            step.node.inputs[i] if i < len(step.node.inputs) else None for i in self.graph.layer_positions(step.node)
        )
        if bias is None:
            return None
        assert data is not None and weight is not None
        values = self.captured.values[self.captured.value_refs[bias]]
        name = f"{value_name(bias)}/of/{step.node.name}"
        if not step.in_codes and step.node.name not in self.plan.biases:
            return self.file.tensor(name, values.shape, data=values.numpy())
        qparams = self.quantized.bias_qparams(BiasPlan(bias=bias, input=data, weight=weight))
        if not step.in_codes:
            return self.file.tensor(name, values.shape, data=fake_quantize(values, qparams).numpy())
        codes = quantize(values, qparams).numpy()
        return self.file.tensor(name, codes.shape, "int32", data=codes, scale=qparams.scale.numpy())

    # --- forms ---

    def _sizes(self, ref: TensorRef, layout: Layout) -> tuple[int, ...]:
        return arranged(self.shape(ref), layout)

    def _tensor(self, ref: TensorRef, layout: Layout, in_codes: bool) -> int:
        name = value_name(ref)
        if name in self.layouts:
            name = f"{name}/{'codes' if in_codes else 'real'}/{layout}"
        else:
            self.layouts[name] = layout
        if in_codes:
            grid = self.grid(ref)
            return self.file.tensor(
                name, self._sizes(ref, layout), "int8", scale=grid.scale, zero_point=grid.zero_point
            )
        return self.file.tensor(name, self._sizes(ref, layout), self.graph.tensors[ref].dtype)

    def _moved(self, ref: TensorRef, in_codes: bool, layout: Layout) -> int:
        """Another order of the axes: a RESHAPE where no more than one of those that move is longer than 1."""
        source, shape = self._forms[ref, in_codes, other_layout(layout)], self.shape(ref)
        made = self._tensor(ref, layout, in_codes)
        if shape[1] == 1 or all(size == 1 for size in shape[2:]):
            sizes = self._sizes(ref, layout)
            return self.emit("RESHAPE", [source, self.integers(sizes)], made, "ReshapeOptions", newShape=list(sizes))
        axes = list(range(len(shape)))
        order = [0, *axes[2:], 1] if layout is Layout.CHANNELS_LAST else [0, axes[-1], *axes[1:-1]]
        return self.emit("TRANSPOSE", [source, self.integers(order)], made, "TransposeOptions")

    def _constant(self, ref: TensorRef, layout: Layout, *, in_codes: bool, rounded: bool) -> int:
        qparams = self.quantized.qparams.get(ref)
        coded = in_codes and qparams is not None
        key = (ref, coded, rounded, layout)
        if key not in self._constants:
            values = self.captured.values[self.captured.value_refs[ref]]
            if qparams is not None and rounded and not coded:
                values = fake_quantize(values, qparams)
            array = quantize(values, qparams).numpy() if coded and qparams is not None else values.numpy()
            array = np.moveaxis(array, 1, -1) if layout is Layout.CHANNELS_LAST and array.ndim > 2 else array
            name = f"{value_name(ref)}/{'codes' if coded else 'real'}/{layout}/{len(self._constants)}"
            self._constants[key] = self._constant_tensor(name, ref, array, qparams if coded else None)
        return self._constants[key]

    def _constant_tensor(self, name: str, ref: TensorRef, array: Array, qparams: QParams | None) -> int:
        if qparams is None:
            return self.file.tensor(name, array.shape, self.graph.tensors[ref].dtype, data=array)
        if qparams.scale.dim():
            raise InputError(f"{described(self.graph, ref)}: one scale for each channel, where .tflite has one in all")
        grid = self.grid(ref)
        shift = 0 if qparams.spec.format.signed else 128
        return self.file.tensor(
            name, array.shape, "int8", data=array - shift, scale=grid.scale, zero_point=grid.zero_point
        )
