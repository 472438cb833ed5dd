"""ONNX with QuantizeLinear/DequantizeLinear: what ONNX Runtime, OpenVINO and TensorRT read.

Every quantized activation is followed by one Q and one DQ, and all its readers take the DQ's result; weights are
stored as codes behind a DQ, biases as int32 codes with scale = scale(input) * scale(weight). Blocks are those of
`block_size`; the float8 scales of NVFP4 stand behind a DQ of their own. A format that needs no scale (float16,
bfloat16) is a Cast there and back. Beside the file, `NAME.provenance.json` tells for every value the tensor that it
stands for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import Exporter
from bitwright.quant.export.onnx_builder import ELEMENT_TYPES, OnnxBuilder, value_name
from bitwright.quant.export.onnx_dynamic import (
    first_opset_of_dynamic,
    quantize_dynamically,
    stored_block_size,
)
from bitwright.quant.export.onnx_pixels import SETTINGS, Pixels, pixels_from, pixels_of, take_pixels
from bitwright.quant.export.onnx_products import Product, multiply_codes, product_of
from bitwright.quant.export.onnx_translators import TRANSLATORS
from bitwright.quant.fake_quantize import quantize
from bitwright.quant.formats import FloatFormat, IntFormat, NumberFormat, is_scaled_float, is_unscaled_float
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QParamsSpec

_DTYPES: dict[str, Any] = {
    "int2": ml_dtypes.int2,
    "uint2": ml_dtypes.uint2,
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "float4_e2m1fn": ml_dtypes.float4_e2m1fn,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
# The first opset whose QuantizeLinear takes each format and that ONNX Runtime loads with it.
_FIRST_OPSET = {
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "int16", "uint16", "int4", "uint4"), 21),
    "float4_e2m1fn": 23,
    **dict.fromkeys(("int2", "uint2"), 25),
}
_FIRST_WITH_BLOCKS = 21
DEFAULT_OPSET = 20


def export_float(graph: Graph, path: str | Path, *, opset: int = DEFAULT_OPSET) -> Path:
    """Writes a network in float, with the same value names as its quantized file."""
    return _save(OnnxBuilder(graph, opset=opset), graph, Path(path))


def export_onnx_qdq(
    quantized: QuantizedModel, path: str | Path, *, opset: int | None = None, pixels: Pixels | None = None
) -> Path:
    """Writes a quantized network and its provenance.

    Args:
        quantized: the network with its plan and qparams.
        path: the `.onnx` file.
        opset: at least what the formats need; None takes the smallest that does, 20 or above. From 25 on, codes of 2
            bits are stored as such, before in 4.
        pixels: how the pictures that the file takes become the network's argument; None takes that itself.

    Raises:
        InputError: a format that ONNX cannot say, an opset too small for it, or an operator without translation.
    """
    graph = quantized.captured.graph
    specs = [each.spec for each in quantized.qparams.values()] + [each.spec for each in quantized.dynamic.values()]
    needed = max([DEFAULT_OPSET, *map(_first_opset, specs)])
    if opset is not None and opset < needed:
        raise InputError(f"opset = {opset}; the formats of this model need at least {needed}")
    return _save(_QdqBuilder(quantized, opset=opset or needed, pixels=pixels), graph, Path(path))


def _first_opset(spec: QParamsSpec) -> int:
    container = storage_format(spec.format)
    if container not in _DTYPES:
        raise InputError(f"format {spec.format.name!r} cannot be written as ONNX; there are: {', '.join(_DTYPES)}")
    needed = [DEFAULT_OPSET, _FIRST_OPSET.get(container, 0), _FIRST_WITH_BLOCKS if spec.block_size else 0]
    return max(*needed, first_opset_of_dynamic(spec) if spec.dynamic else 0)


def storage_format(fmt: NumberFormat, *, opset: int = DEFAULT_OPSET) -> str:
    """The ONNX type that holds a format's codes: integers of 5 to 7 bits live in 8, of 3 in 4, of 2 in 4 or 2."""
    if isinstance(fmt, FloatFormat):
        return fmt.name
    widths = (4, 8, 16, 32) if opset < _FIRST_OPSET["int2"] else (2, 4, 8, 16, 32)
    bits = next(width for width in widths if fmt.bits <= width)
    return f"{'' if fmt.signed else 'u'}int{bits}"


class _QdqBuilder(OnnxBuilder):
    def __init__(self, quantized: QuantizedModel, *, opset: int, pixels: Pixels | None) -> None:
        super().__init__(quantized.captured.graph, opset=opset)
        self.pixels = pixels
        self.quantized = quantized
        self.captured = quantized.captured
        self.has_float8 = any(is_scaled_float(q.spec.format) for q in quantized.qparams.values())

    def read(self, ref: TensorRef, reader: Node) -> str:
        bias = self.quantized.plan.biases.get(reader.name)
        if bias is not None and bias.bias == ref:
            return self._constant(f"{value_name(ref)}/{reader.name}", ref, self.quantized.bias_qparams(bias))
        if ref in self.quantized.dynamic:
            return f"{value_name(ref)}/dq"
        qparams = self.quantized.qparams.get(ref)
        constant = self.graph.is_constant(ref)
        if qparams is None or (constant and reader.name not in self.quantized.plan.quantized):
            return super().read(ref, reader)
        if constant:
            return self._constant(value_name(ref), ref, qparams)
        return f"{value_name(ref)}/dq"

    def write_product(self, node: Node) -> str | None:
        kind = product_of(self.quantized, node)
        if kind is None:
            return None
        weight, name = node.tensors[1], value_name(node.tensors[1]) + "/columns"
        out = self.result(node) if len(node.tensors) < 3 else self.spare(self.result(node))
        qparams = self.quantized.qparams[weight]
        if kind is Product.REAL:
            return self.emit("MatMul", [self.operand(node, 0), self._constant(name, weight, qparams, turned=True)], out)
        self._add_constant(name, weight, _turned(qparams), turned=True)
        return multiply_codes(self, value_name(node.tensors[0]), name, out)

    def emit(self, op_type: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> str:
        """Spells Clip as Max and Min before float8 codes: ONNX Runtime's Clip fusion stops at a float8 Q."""
        if op_type != "Clip" or not self.has_float8:
            return super().emit(op_type, inputs, output, **attributes)
        assert isinstance(output, str)  # Clip has one result
        value, *bounds = inputs
        steps = [(name, bound) for name, bound in zip(("Max", "Min"), bounds, strict=False) if bound]
        for position, (name, bound) in enumerate(steps):
            value = super().emit(name, [value, bound], output if position == len(steps) - 1 else self.spare(output))
        return value

    def finish_input(self, ref: TensorRef) -> None:
        takes = self.pixels if ref in self.graph.inputs else None
        if takes is None or not take_pixels(self, ref, takes, self.quantized.qparams.get(ref)):
            self._quantize(ref)

    def declare_input(self, ref: TensorRef) -> onnx.ValueInfoProto:
        if self.pixels is None or ref not in self.graph.inputs:
            return super().declare_input(ref)
        return pixels_of(self, ref)

    def finish_node(self, node: Node) -> None:
        for ref in node.outputs:
            self._quantize(ref)

    def output_name(self, ref: TensorRef) -> str:
        quantized = ref in self.quantized.qparams or ref in self.quantized.dynamic
        return f"{value_name(ref)}/dq" if quantized else value_name(ref)

    def _quantize(self, ref: TensorRef) -> None:
        leaves = ref in self.graph.outputs or any(ref == after for _, after in self.graph.state)
        if not (self.graph.consumers[ref] or leaves):
            return
        name = value_name(ref)
        if ref in self.quantized.dynamic:
            kinds = {product_of(self.quantized, reader) for reader in self.graph.consumers[ref]}
            back = leaves or kinds != {Product.CODES}
            quantize_dynamically(self, name, self.shape(ref), self.quantized.dynamic[ref], back=back)
        elif ref in self.quantized.qparams:
            self._quantize_statically(name, self.quantized.qparams[ref])

    def _quantize_statically(self, name: str, qparams: QParams) -> None:
        if is_unscaled_float(qparams.spec.format):
            self.emit("Cast", [name], f"{name}/q", to=ELEMENT_TYPES[qparams.spec.format.name])
            self.emit("Cast", [f"{name}/q"], f"{name}/dq", to=ELEMENT_TYPES["float32"])
            return
        scale, zero_point = self._qparams(name, qparams)
        self.emit("QuantizeLinear", [self._saturated(name, qparams), scale, zero_point], f"{name}/q")
        self.emit("DequantizeLinear", [f"{name}/q", scale, zero_point], f"{name}/dq")

    def _saturated(self, name: str, qparams: QParams) -> str:
        """Formats narrower than their container are clipped before they are quantized; ONNX has no such Q."""
        fmt = qparams.spec.format
        container = storage_format(fmt, opset=self.opset)
        if not isinstance(fmt, IntFormat) or (container == fmt.name and not qparams.spec.narrow_range):
            return name
        low, high = (np.float32(v) for v in qparams.range)
        bounds = [self.constant(name, np.asarray(low)), self.constant(name, np.asarray(high))]
        return self.emit("Clip", [name, *bounds], f"{name}/clip")

    def _constant(self, name: str, ref: TensorRef, qparams: QParams, *, turned: bool = False) -> str:
        """What turns a constant's codes back into real values; a matrix may be `turned`, its scales with it."""
        result = f"{name}/dq"
        if f"{name}/codes" not in self.initializers:
            qparams = _turned(qparams) if turned else qparams
            parts = self._add_constant(name, ref, qparams, turned=turned)
            if is_unscaled_float(qparams.spec.format):
                return self.emit("Cast", parts[:1], result, to=ELEMENT_TYPES["float32"])
            shape = self.shape(ref)[::-1] if turned else self.shape(ref)
            size = stored_block_size(qparams.spec, qparams.axis, shape)
            self.emit("DequantizeLinear", parts, result, axis=qparams.axis, block_size=size)
        return result

    def _add_constant(self, name: str, ref: TensorRef, qparams: QParams, *, turned: bool = False) -> list[str]:
        """Codes, scale and zero point of a constant; of a scale-less format the codes alone."""
        parts = [f"{name}/codes", f"{name}/scale", f"{name}/zero_point"]
        if parts[0] not in self.initializers:
            values = self.captured.values[self.captured.value_refs[ref]]
            self._add_codes(parts[0], quantize(values.t() if turned else values, qparams), qparams)
            if not is_unscaled_float(qparams.spec.format):
                self._qparams(name, qparams)
        return parts

    def _qparams(self, name: str, qparams: QParams) -> tuple[str, str]:
        if qparams.tensor_scale is not None:
            self._add_two_level_scale(f"{name}/scale", qparams.scale, qparams.tensor_scale)
        else:
            self.add_initializer(f"{name}/scale", qparams.scale.numpy().astype(np.float32))
        self._add_codes(f"{name}/zero_point", qparams.zero_point, qparams)
        return f"{name}/scale", f"{name}/zero_point"

    def _add_two_level_scale(self, name: str, scale: torch.Tensor, tensor_scale: torch.Tensor) -> None:
        """Float8 codes behind a DQ whose result is the scale; dividing gives them back: they have few digits."""
        codes = (scale / tensor_scale).numpy().astype(ml_dtypes.float8_e4m3fn)
        self.initializers[f"{name}/codes"] = numpy_helper.from_array(codes, f"{name}/codes")
        self.add_initializer(f"{name}/scale", tensor_scale.numpy())
        self.emit("DequantizeLinear", [f"{name}/codes", f"{name}/scale"], name)

    def _add_codes(self, name: str, codes: torch.Tensor, qparams: QParams) -> None:
        dtype = _DTYPES[storage_format(qparams.spec.format, opset=self.opset)]
        self.initializers[name] = numpy_helper.from_array(_as_numpy(codes).astype(dtype), name)


def _turned(qparams: QParams) -> QParams:
    """Those of the transposed matrix."""
    if qparams.axis is None:
        return qparams
    return replace(qparams, scale=qparams.scale.t(), zero_point=qparams.zero_point.t(), axis=1 - qparams.axis % 2)


def _as_numpy(codes: torch.Tensor) -> npt.NDArray[Any]:
    # Codes of float formats are exact in float32, and so is the way back.
    return np.asarray(codes.float().numpy() if codes.dtype.is_floating_point else codes.numpy())


def _save(builder: OnnxBuilder, graph: Graph, path: Path) -> Path:
    model = builder.build(TRANSLATORS)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    provenance = {
        "format": "bitwright-provenance/1",
        "values": {value_name(ref): str(ref) for ref in graph.tensors},
        "sources": {value_name(n.outputs[0]): str(n.source) for n in graph.nodes if n.source and n.outputs},
        "operators": {
            value_name(n.outputs[0]): {"name": n.name, "op": n.op, "module_type": n.module_type}
            for n in graph.nodes
            if n.outputs
        },
        "state": [{"input": value_name(old), "output": builder.output_name(new)} for old, new in graph.state],
        "outputs": [output.name for output in model.graph.output][len(graph.state) :],
    }
    path.with_suffix(".provenance.json").write_text(json.dumps(provenance, indent=1))
    return path


def _write(quantized: QuantizedModel, path: Path, **settings: str) -> tuple[Path, ...]:
    file = export_onnx_qdq(quantized, path, pixels=pixels_from(quantized.captured.graph, settings))
    return file, path.with_suffix(".provenance.json")


EXPORTER = Exporter(title="ONNX with QuantizeLinear and DequantizeLinear", write=_write, settings=SETTINGS)

__all__ = ["DEFAULT_OPSET", "ELEMENT_TYPES", "export_float", "export_onnx_qdq", "storage_format"]
