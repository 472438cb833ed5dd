"""ResNet-20 on 32×32 patches in W4A8, all layers in four bits per channel: ours beside Brevitas' GPFQ and GPTQ.

The network and the data are those of `w8a8_resnet20`.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from bitwright.experiments.benchmarks.contest import AGREEMENT, AREA, SQNR, WALL, hold, records_of
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.rows.w8a8_resnet20 import MARGIN_DB, RECIPE, scorer

ROW = "w4a8_resnet20"
MARGIN_POINTS = 1.0
SIDES = (
    # QDrop's time is that of the slowest peer; on held-out calibration samples it is ahead of GPTQ, which is shown too.
    (OURS, "x86-vnni,int4,alone,qdrop"),
    (OURS, "x86-vnni,int4,alone,gptq"),
    (OURS, "x86-vnni,int4,gptq"),
    ("brevitas", "int4,alone,gpfq"),
    ("brevitas", "int4,gpfq"),
    ("brevitas", "int4,alone,gptq"),
    ("brevitas", "int4,gptq"),
)


def run(bench: Bench) -> list[Record]:
    """Trains the network if that has not been done, quantizes it by everybody and scores them."""
    trained = bench.trained(RECIPE)
    jobs = [trained.job(peer, method) for peer, method in SIDES]
    contest = hold(jobs, scorer(trained), home=bench.home, cache=bench.peers, prove_int8=False)
    best, most_alike = contest.best_peer(SQNR), contest.best_peer(AGREEMENT)
    reaches = {
        SQNR: Reach("≥", best.figures[SQNR].value + MARGIN_DB),
        AGREEMENT: Reach("≥", most_alike.figures[AGREEMENT].value + MARGIN_POINTS),
        WALL: Reach("≤", best.wall_s),
    }
    in_four_bits = record(
        f"{ROW}.layers_in_four_bits",
        area=AREA,
        value=four_bit_percent(contest.ours.result.file),
        unit="% of our file's layers with weights",
        n=1,
        reach=Reach("=", 100.0),
        table=contest.table,
    )
    return [*records_of(ROW, contest, n=len(trained.labels), reaches=reaches), in_four_bits]


def four_bit_percent(file: Path | None) -> float:
    """Share of a file's convolutions and linear layers whose weights are int4 codes, in percent."""
    assert file is not None
    graph = onnx.load(file).graph
    kinds = {each.name: each.data_type for each in graph.initializer}
    from_codes = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    weights = [node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    four = sum(kinds.get(from_codes.get(name, name)) == onnx.TensorProto.INT4 for name in weights)
    return float(100.0 * four / len(weights))
