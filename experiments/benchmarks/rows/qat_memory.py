"""How much more memory does a step of quantization-aware training hold than a float step? Ours beside four peers.

The most bytes of tensors that are alive at once during a step above what it began with (activations kept for the
backward pass, gradients, scratch), by the profiler's record of every allocation; parameters and the optimizer's state
are outside, and the same on both sides but for a few scales.
"""

from __future__ import annotations

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.qat_steps import (
    CLIPPED,
    FLOAT,
    FROZEN,
    LIVE,
    LSQ,
    MOBILENET,
    RESNET20,
    SETTINGS,
    WHOLE,
    sides,
)
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "qat_memory"
FIGURES = {
    "whole": f"{CLIPPED}, {FROZEN}",
    "whole_live": f"{CLIPPED}, {LIVE}",
    "lsq": f"{LSQ}, {FROZEN}",
    "lsq_live": f"{LSQ}, {LIVE}",
}


def run(bench: Bench) -> list[Record]:
    """Both networks, one side after another."""
    return [each for network in (RESNET20, MOBILENET) for each in _network(bench, network)]


def _network(bench: Bench, network: str) -> list[Record]:
    found: dict[tuple[str, str], float] = {}
    table: list[dict[str, str]] = []
    versions: dict[str, str] = {}
    for peer, names in SETTINGS.items():
        with sides(bench, network, {peer: names}) as running:
            peaks = running[peer].ask("memory")
            versions |= running[peer].versions
        for name in names:
            found[peer, name] = peaks[name] / peaks[FLOAT]
            mb = f"{peaks[name] / 1e6:.1f} of {peaks[FLOAT] / 1e6:.1f}"
            table.append({"side": peer, "setting": name, "÷ float": f"{found[peer, name]:.3f}", "MB": mb})
    return [
        record(
            f"{ROW}.{network}.{figure}",
            area="qat",
            value=found[OURS, f"{WHOLE}, {setting}"],
            unit="float steps' memory",
            n=1,
            reach=Reach("≤", 1.1),
            peers=versions,
            table=table if figure == "whole" else (),
        )
        for figure, setting in FIGURES.items()
    ]
