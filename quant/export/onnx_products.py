"""Linear layers as the products that runtimes fuse with the codes around them.

Weights alone in codes: DequantizeLinear and MatMul, which ONNX Runtime makes MatMulNBits of and OpenVINO a layer with
compressed weights. Activations whose scale `DynamicQuantizeLinear` computes: MatMulInteger and the scales behind it,
DynamicQuantizeMatMul in ONNX Runtime. A Gemm both would compute in float, from codes that each run turns back.
"""

from __future__ import annotations

from enum import Enum, auto

from onnx import TensorProto

from bitwright.quant.export.onnx_builder import OnnxBuilder
from bitwright.quant.export.onnx_dynamic import is_dynamic_uint8
from bitwright.quant.formats import IntFormat, is_unscaled_float
from bitwright.quant.graph import Node
from bitwright.quant.quantized_model import QuantizedModel


class Product(Enum):
    """What is multiplied."""

    REAL = auto()  # what codes of weights stand for
    CODES = auto()  # codes of activations and codes of weights


def product_of(quantized: QuantizedModel, node: Node) -> Product | None:
    """How a linear layer is to be written; None where a Gemm does."""
    graph, plan = quantized.captured.graph, quantized.plan
    if node.op != "linear" or node.name not in plan.quantized or node.name in plan.biases:
        return None
    source, weight = node.tensors[:2]
    qparams, known = quantized.qparams.get(weight), quantized.qparams.get(source)
    if qparams is None or not graph.is_constant(weight):
        return None
    if not isinstance(qparams.spec.format, IntFormat) or qparams.spec.format.bits > 8:
        return None
    if source not in quantized.dynamic:
        return Product.REAL if known is None or is_unscaled_float(known.spec.format) else None
    if not is_dynamic_uint8(quantized.dynamic[source].spec):
        return None
    whole_bytes = qparams.spec.format.bits > 4 and qparams.spec.block_size is None
    return Product.CODES if whole_bytes else Product.REAL


def multiply_codes(b: OnnxBuilder, source: str, weight: str, out: str) -> str:
    """`(q_x - z_x) (q_w - z_w) s_x s_w`: the sum of products in int32, `[.., out]`.

    Args:
        b: where it is written.
        source: the value behind which `quantize_dynamically` stands.
        weight: in front of `/codes` `[in, out]`, `/scale` and `/zero_point`, `[]` or `[out]`.
        out: the result.
    """
    operands = [f"{source}/q", f"{weight}/codes", f"{source}/zero_point", f"{weight}/zero_point"]
    whole = b.emit("MatMulInteger", operands, b.spare(out))
    real = b.emit("Cast", [whole], b.spare(out), to=TensorProto.FLOAT)
    scales = b.emit("Mul", [f"{source}/scale", f"{weight}/scale"], b.spare(out))
    return b.emit("Mul", [real, scales], out)
