"""A network trained in W8A8 beside its file in ONNX Runtime and OpenVINO: per layer from the same codes, end to end.

MobileNetV2 learns from its float self on the calibration photographs, scales by LSQ, batch norms frozen. Given a
runtime's own codes of a layer's operands, the named integer rule (those of ONNX Runtime's kernels) has to give the
runtime's codes of its result; where OpenVINO's kernels round in another order, codes lie one apart at ties. End to end
the simulation drifts from the files by single codes, which each further layer carries on: distances and top-1 are
printed.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.deployed import by_rule, compared
from bitwright.experiments.benchmarks.float_networks import float_network
from bitwright.experiments.benchmarks.ours import images_of
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.backends import get_backend
from bitwright.qat import QATCallback, distillation_loss
from bitwright.quant.quantized_model import QuantizedModel

ROW = "qat_deployed"
NETWORK, TARGET = "mobilenet_v2", "x86-vnni"
RUNTIMES = ("onnxruntime", "openvino")
STEPS, BATCH, LR = 20, 8, 1e-5
IMAGES, SCORED = 3, 200


def run(bench: Bench) -> list[Record]:
    """Trains, exports, and compares with each runtime."""
    file = bench.ours / ROW / f"{NETWORK}.onnx"
    trained = _trained(bench, file)
    images = [image for image, _ in zip(images_of(bench.sample.scored_file), range(SCORED), strict=False)]
    top1 = _top1(bench, trained, file, images)
    return [_beside(runtime, trained, file, images[:IMAGES], top1) for runtime in RUNTIMES]


def _trained(bench: Bench, file: Path) -> QuantizedModel:
    network = float_network(NETWORK, bench.home)
    teacher = copy.deepcopy(network)
    network.requires_grad_(True)
    photographs = torch.from_numpy(np.load(bench.sample.calibration_file))
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    batches = torch.split(photographs, BATCH)
    qat = QATCallback(network, optimizer, target=TARGET, calibration=batches)
    network.train()
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        batch = photographs[torch.randint(len(photographs), (BATCH,), generator=generator)]
        with torch.no_grad():
            wanted = teacher(batch)
        optimizer.zero_grad()
        distillation_loss(network(batch), wanted).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        qat.on_step()
    network.eval()
    file.parent.mkdir(parents=True, exist_ok=True)
    trained = qat.finish(file)
    assert isinstance(trained, QuantizedModel)
    return trained


def _beside(
    runtime: str, trained: QuantizedModel, file: Path, images: list[torch.Tensor], top1: dict[str, str]
) -> Record:
    layers, ends = compared(trained, file, images, runtime=runtime)
    table: list[dict[str, Any]] = [
        {"rule": rule, "codes": total, "unlike": unlike, "worst layer, %": worst}
        for rule, (unlike, total, worst) in sorted(by_rule(layers).items())
    ]
    farthest = max(each.distance for each in layers)
    return record(
        f"{ROW}.{runtime}",
        area="qat",
        value=min(worst for *_, worst in by_rule(layers).values()),
        unit="% of a layer's codes equal",
        n=sum(each.elements for each in layers),
        reach=Reach("≥", 99.9),
        table=[*table, {"farthest, codes": farthest, **ends, **top1}],
    )


def _top1(bench: Bench, trained: QuantizedModel, file: Path, images: list[torch.Tensor]) -> dict[str, str]:
    labels = bench.sample.labels[: len(images)]
    sessions = {runtime: get_backend(runtime).load(file) for runtime in RUNTIMES}
    decided: dict[str, list[int]] = {"float": [], "simulation": [], **{runtime: [] for runtime in RUNTIMES}}
    network = float_network(NETWORK, bench.home)
    for image in images:
        with torch.no_grad():
            decided["float"].append(int(network(image).argmax()))
        decided["simulation"].append(int(trained.run(image).argmax()))
        for runtime, session in sessions.items():
            results = session.run({session.input_infos[0].name: image.numpy()})
            decided[runtime].append(int(results[session.output_infos[0].name].argmax()))
    return {f"top-1 {who}, %": f"{100 * np.mean(np.array(found) == labels):.1f}" for who, found in decided.items()}
