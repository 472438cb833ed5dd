"""What does a step of quantization-aware training cost, in float steps? Ours beside four peers, one thread, one run.

Forward, cross-entropy, backward and SGD on one batch, batch norms of the float network live. Each side takes turns with
the others; each of its steps is divided by a float step of the same process and round. Processor time, which with one
thread is the step's own. Peers as they document their training: ModelOpt leaves batch norms and additions as they are
and passes gradients through; AIMET and Brevitas fold batch norms first. `frozen` batch norms keep their statistics and
are part of the weights, which is the callback's default.
"""

from __future__ import annotations

from collections import defaultdict

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.qat_steps import (
    CLIPPED,
    FROZEN,
    KEPT,
    LAYERS,
    LIVE,
    LSQ,
    MOBILENET,
    MODELOPT,
    RESNET20,
    WHOLE,
    interval,
    ratios,
    sides,
)
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "qat_step"
# Turns, and rounds of steps a turn.
TURNS = {RESNET20: (10, 4), MOBILENET: (6, 1)}


def run(bench: Bench) -> list[Record]:
    """Ratios of both networks."""
    return [each for network in TURNS for each in _network(bench, network)]


def _network(bench: Bench, network: str) -> list[Record]:
    turns, rounds = TURNS[network]
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    versions: dict[str, str] = {}
    with sides(bench, network) as running:
        for _ in range(turns):
            for peer, side in running.items():
                for name, values in ratios(side, rounds).items():
                    found[peer, name] += values
        for side in running.values():
            versions |= side.versions
    figures = {key: interval(values) for key, values in found.items()}
    table = [
        {"side": peer, "setting": name, "step ÷ float": f"{middle:.2f}", "95 %": f"{low:.2f} to {high:.2f}"}
        for (peer, name), (middle, low, high) in figures.items()
    ]

    def of(figure: str, setting: str, limit: float) -> Record:
        middle, low, high = figures[OURS, setting]
        return record(
            f"{ROW}.{network}.{figure}",
            area="qat",
            value=middle,
            unit="float steps",
            n=turns * rounds,
            spread=(low, high),
            reach=Reach("≤", limit),
            peers=versions,
            table=table if figure == "whole" else (),
        )

    theirs = figures[MODELOPT, KEPT][0]
    return [
        of("whole", f"{WHOLE}, {CLIPPED}, {FROZEN}", 1.25),
        of("whole_live", f"{WHOLE}, {CLIPPED}, {LIVE}", 1.25),
        of("lsq", f"{WHOLE}, {LSQ}, {FROZEN}", 1.4),
        of("lsq_live", f"{WHOLE}, {LSQ}, {LIVE}", 1.4),
        of("layers", f"{LAYERS}, {CLIPPED}, {FROZEN}", theirs),
        of("layers_live", f"{LAYERS}, {CLIPPED}, {LIVE}", theirs),
    ]
