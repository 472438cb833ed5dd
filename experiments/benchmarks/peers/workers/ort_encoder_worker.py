"""ONNX Runtime's quantizers on a sentence encoder: int8 static and dynamic, int4 weights in blocks of 128."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from encoder_exchange import EncoderRequest, Forward, Ids, serve_encoder
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

BLOCK = 128
PRODUCTS = ["MatMul", "Gemm"]


class TextReader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds the texts one by one."""

    def __init__(self, texts: Ids) -> None:
        self.rest = iter(texts)

    def get_next(self) -> dict[str, Ids] | None:
        """The next text, or None after the last."""
        ids = next(self.rest, None)
        return None if ids is None else {"ids": ids[None]}


def quantize(request: EncoderRequest) -> Forward:
    """`static` and `dynamic` quantize matrix products, as its documentation advises for transformers."""
    prepared, file = (str(Path(request.folder) / f"{name}.onnx") for name in ("prepared", "quantized"))
    quant_pre_process(request.float_file, prepared)
    match request.method:
        case "static":
            quantize_static(
                prepared,
                file,
                TextReader(request.texts()),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=PRODUCTS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        case "dynamic":
            quantize_dynamic(prepared, file, op_types_to_quantize=PRODUCTS, per_channel=True)
        case symmetry:
            quantizer = MatMulNBitsQuantizer(
                onnx.load(prepared), block_size=BLOCK, is_symmetric=symmetry == "int4_symmetric"
            )
            quantizer.process()
            onnx.save(quantizer.model.model, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def forward(ids: Ids) -> Any:
        return session.run(None, {"ids": ids})[0]

    return forward


if __name__ == "__main__":
    serve_encoder(("onnxruntime", "onnx"), quantize)
