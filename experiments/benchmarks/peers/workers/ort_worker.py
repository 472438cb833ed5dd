"""ONNX Runtime's static quantization: Q/DQ, u8 activations, s8 weights per channel."""

from __future__ import annotations

from pathlib import Path

from exchange import Images, Quantized, Request, serve
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

METHODS = {"min_max": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
STRIDE = 25  # images whose activations are held at once; all at once takes gigabytes


class ImageReader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds the calibration images one by one."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.set_range(0, request.count)

    def __len__(self) -> int:
        return self.request.count

    def set_range(self, start_index: int, end_index: int) -> None:
        """Goes to a part of the images; called by the calibrator for each stride."""
        self.rest = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, Images] | None:
        """The next image, or None after the last."""
        index = next(self.rest, None)
        return None if index is None else {"input": self.request.image(index)}


def load(request: Request) -> str:
    """The float file."""
    return request.float_file


def quantize(float_file: str, request: Request) -> Quantized:
    """Its documented route: pre-processing (fusing batch norms, shapes), then `quantize_static`."""
    prepared = str(Path(request.folder) / "prepared.onnx")
    quantized = str(Path(request.folder) / "quantized.onnx")
    quant_pre_process(float_file, prepared)
    quantize_static(
        prepared,
        quantized,
        ImageReader(request),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=METHODS[request.method],
        extra_options={"CalibStridedMinMax": STRIDE},
    )
    return Quantized(file=quantized)


if __name__ == "__main__":
    serve(("onnxruntime", "onnx"), load, quantize)
