"""MobileNetV2 for the H200: true fp8 E4M3 codes, every conv and linear, and an SQNR not below the best peer's.

Codes are compared bit for bit with `ml_dtypes` on the same tensor and scale: divided, clamped to ±448, then cast.
Accuracy is that of the exported file on ONNX Runtime, which simulates fp8 in float; speed is not measured here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.metrics import agreement_percent, sqnr_db, top1_drop_points
from bitwright.experiments.benchmarks.onnx_logits import onnx_logits
from bitwright.experiments.benchmarks.ours import quantize_ours
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.proof.macs import count_macs
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph, read_onnx
from bitwright.quant.fake_quantize import quantize
from bitwright.quant.formats import FORMATS
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QParamsSpec

ROW = "fp8_h200"
NETWORK = "mobilenet_v2"
PEERS = (("modelopt", "fp8"), ("nncf", "fp8"))
E4M3_MAX = 448.0
Codes = npt.NDArray[np.uint8]


def run(bench: Bench) -> list[Record]:
    """Codes, coverage and accuracy of one exported file."""
    sample = bench.sample
    reference = bench.float_logits(NETWORK)
    ours = quantize_ours(
        float_network(NETWORK, bench.home),
        target="h200",
        calibration=sample.calibration_file,
        file=bench.ours / ROW / "quantized.onnx",
    )
    logits = {"bitwright": onnx_logits(ours.file, sample.scored_file)}
    versions: dict[str, str] = {}
    for name, method in PEERS:
        peer = bench.peer(name, method, NETWORK)
        logits[peer.job.name] = peer.score(sample.scored_file)
        versions |= peer.answer.versions
    sqnr = {who: sqnr_db(reference, scores) for who, scores in logits.items()}
    best = max((who for who in sqnr if who != "bitwright"), key=lambda who: sqnr[who].value)
    pairs = [*weight_codes(ours.model, ours.file), corner_codes()]
    table = [
        {
            "who": who,
            "SQNR dB": f"{sqnr[who]:.2f}",
            "agreement %": f"{agreement_percent(reference, scores):.2f}",
            "top-1 drop, points": f"{top1_drop_points(reference, scores, sample.labels):.2f}",
        }
        for who, scores in logits.items()
    ]
    percent, layers = fp8_macs(ours.file)
    common: dict[str, Any] = {"area": "quant", "peers": versions, "table": table}
    return [
        record(
            f"{ROW}.sqnr",
            value=sqnr["bitwright"].value,
            unit="dB",
            n=len(sample.labels),
            reach=Reach("≥", sqnr[best].value),
            spread=sqnr["bitwright"].interval,
            **common,
        ),
        record(
            f"{ROW}.codes_unlike_ml_dtypes",
            value=float(sum(int((got != truth).sum()) for got, truth in pairs)),
            unit="codes",
            n=sum(got.size for got, _ in pairs),
            reach=Reach("=", 0.0),
            **common,
        ),
        record(
            f"{ROW}.macs",
            value=percent,
            unit="% of conv and linear MACs",
            n=layers,
            reach=Reach("=", 100.0),
            **common,
        ),
    ]


def ml_dtypes_codes(values: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]) -> Codes:
    """What `ml_dtypes` makes of a tensor: divided by the scale, clamped, cast; as bytes."""
    with np.errstate(invalid="ignore"):  # NaN is among the values
        clamped = np.clip(values / scale, -E4M3_MAX, E4M3_MAX)
    codes: Codes = clamped.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return codes


def weight_codes(model: QuantizedModel, file: Path) -> Iterator[tuple[Codes, Codes]]:
    """For each weight the codes in the file and those of `ml_dtypes` from the float weight and the file's scale."""
    stored = {tensor.name: tensor for tensor in onnx.load(file).graph.initializer}
    for ref in model.plan.weights:
        values = model.captured.graph.array(ref)
        codes = numpy_helper.to_array(stored[f"{ref}/codes"])
        scale = numpy_helper.to_array(stored[f"{ref}/scale"])
        yield codes.view(np.uint8), ml_dtypes_codes(values, scale.reshape(-1, *[1] * (values.ndim - 1)))


def corner_codes() -> tuple[Codes, Codes]:
    """Every float16 value (NaN, infinities, ties and subnormals among them), quantized by us and by `ml_dtypes`."""
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    scale = np.float32(1.0)
    spec = QParamsSpec(format=FORMATS["float8_e4m3fn"], symmetric=True)
    qparams = QParams(spec, torch.tensor(float(scale)), torch.tensor(0), None)
    ours = quantize(torch.from_numpy(values), qparams).view(torch.uint8).numpy()
    return ours, ml_dtypes_codes(values, np.asarray(scale))


def fp8_macs(file: Path) -> tuple[float, int]:
    """The percentage of multiply-accumulates whose operands both come out of fp8 codes, and the number of layers."""
    graph = read_onnx(file)
    macs = count_macs(graph)
    fp8 = sum(count for index, count in macs.items() if _is_fp8(graph, index))
    return 100.0 * fp8 / sum(macs.values()), len(macs)


def _is_fp8(graph: OnnxGraph, index: int) -> bool:
    codes = [graph.codes_before(value) for value in graph.nodes[index].input[:2]]
    return all(code is not None and code.is_float8 for code in codes)
