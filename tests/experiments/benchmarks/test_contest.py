from pathlib import Path

import pytest
import torch

from bitwright.experiments.benchmarks.contest import (
    ADDITIONS,
    AGREEMENT,
    MACS,
    SQNR,
    WALL,
    Contest,
    Contestant,
    in_int8,
    records_of,
)
from bitwright.experiments.benchmarks.metrics import Estimate
from bitwright.experiments.benchmarks.peers.driver import PeerJob, PeerResult
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.peers.workers.exchange import Answer
from bitwright.experiments.benchmarks.records import Reach
from bitwright.experiments.models.residual_blocks import BasicBlock
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.ptq import quantize


def contestant(peer, sqnr, agreement, wall):
    job = PeerJob(peer=peer, method="m", network="net", float_file=Path("f.onnx"), calibration=Path("c.npy"))
    answer = Answer(
        file="", logits="", wall_s=wall, peak_mb=1.0, growth_mb=0.0, note="", versions={peer: f"{peer} 1.0"}
    )
    figures = {SQNR: Estimate(sqnr, sqnr - 1, sqnr + 1), AGREEMENT: Estimate(agreement, 0.0, 100.0)}
    return Contestant(result=PeerResult(job=job, answer=answer), figures=figures, in_int8={MACS: 100.0})


@pytest.fixture
def contest():
    return Contest(
        everybody=[
            contestant("nncf", 20.0, 99.0, 9.0),
            contestant(OURS, 30.0, 98.0, 2.0),
            contestant("ort", 28.0, 97.0, 3.0),
            contestant(OURS, 50.0, 98.0, 2.0),
        ]
    )


def test_ours_is_the_first_of_our_sides_and_never_a_peer(contest):
    assert contest.ours.figures[SQNR].value == 30.0
    assert contest.best_peer().result.job.peer == "ort"
    assert contest.best_peer(AGREEMENT).result.job.peer == "nncf"


def test_each_figure_of_ours_is_a_record_with_what_it_has_to_reach(contest):
    reaches = {SQNR: Reach("≥", 29.5), WALL: Reach("≤", 1.0), MACS: Reach("=", 100.0)}
    found = {each.row: each for each in records_of("row", contest, n=7, reaches=reaches)}
    assert {name: (each.value, each.unit, each.holds, each.n) for name, each in found.items()} == {
        "row.sqnr": (30.0, "dB", True, 7),
        "row.agreement": (98.0, "%", None, 7),
        "row.macs_in_int8": (100.0, "%", True, 1),
        "row.wall": (2.0, "s", False, 1),
    }
    assert found["row.sqnr"].spread == (29.0, 31.0)
    assert [line["who"] for line in found["row.wall"].table] == ["nncf m", f"{OURS} m", "ort m", f"{OURS} m"]
    assert found["row.wall"].versions["ort"] == "ort 1.0"


def test_what_runs_in_int8_is_read_from_the_runtime(tmp_path):
    torch.manual_seed(0)
    images = [torch.randn(1, 8, 8, 8) for _ in range(16)]
    captured = capture(BasicBlock(8, 8, stride=1).eval(), (images[0],))
    quantized = quantize(captured, load_target("x86-vnni").scheme(), images)
    export_onnx_qdq(quantized, tmp_path / "int8.onnx")
    export_float(quantized.captured.graph, tmp_path / "float.onnx")
    assert in_int8(tmp_path / "int8.onnx") == {MACS: 100.0, ADDITIONS: 100.0}
    assert in_int8(tmp_path / "float.onnx") == {MACS: 0.0, ADDITIONS: 0.0}
    assert in_int8(tmp_path / "quantized.xml") == in_int8(None) == {}
