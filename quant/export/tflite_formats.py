"""Which of a plan's formats int8 `.tflite` files can hold: LiteRT's 8-bit quantization specification."""

from __future__ import annotations

from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import described
from bitwright.quant.formats import IntFormat
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity


def check_formats(quantized: QuantizedModel) -> None:
    """Refuses what int8 codes cannot say.

    Raises:
        InputError: names each such tensor and what stands in the way.
    """
    graph = quantized.captured.graph
    wrong = [f"  {described(graph, ref)}: its scale follows the data" for ref in quantized.dynamic]
    for ref, qparams in quantized.qparams.items():
        is_weight = ref in quantized.plan.weights and qparams.spec.symmetric
        if why := _weight_refusal(qparams) if is_weight else _activation_refusal(qparams):
            wrong.append(f"  {described(graph, ref)}: {why}")
    if wrong:
        raise InputError("int8 .tflite files cannot hold:\n" + "\n".join(wrong))


def _weight_refusal(qparams: QParams) -> str | None:
    spec = qparams.spec
    if not isinstance(spec.format, IntFormat) or not spec.format.signed or spec.format.bits > 8:
        return f"format {spec.format.name}; weights are signed integers of at most 8 bits"
    if spec.granularity is Granularity.PER_BLOCK:
        return f"a scale for each block of {spec.block_size}; there is one for each channel"
    return None


def _activation_refusal(qparams: QParams) -> str | None:
    spec = qparams.spec
    if not isinstance(spec.format, IntFormat) or spec.format.bits != 8:
        return f"format {spec.format.name}; activations are int8 or uint8"
    if qparams.scale.dim():
        return "one scale for each channel; activations have one in all"
    if spec.narrow_range and spec.format.signed:
        return "narrow_range, which kernels do not keep to"
    return None
