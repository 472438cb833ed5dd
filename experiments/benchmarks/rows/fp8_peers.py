"""fp8 E4M3 of MobileNetV2, every convolution and linear layer, under ten choices of scales, beside three toolkits.

A choice multiplies all ranges, of weights and activations, by `2^(k / 10)`: a whole octave, since a power of two
changes nothing but what becomes subnormal. The figure is the median over the choices. All are simulated in float32,
each by its own toolkit, calibrated with the same 200 pictures and scored on every eighth of the 800 others. ModelOpt
corrects no biases; NNCF's corrections are those of the first choice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.metrics import agreement_percent, sqnr_db, top1_drop_points
from bitwright.experiments.benchmarks.peers.asking import ask
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, OURS
from bitwright.experiments.benchmarks.peers.workers.exchange import Request
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "fp8_peers"
NETWORK = "mobilenet_v2"
CHOICES = 10
FACTORS = tuple(2.0 ** (choice / CHOICES) for choice in range(CHOICES))
# Peers, and how many choices one process makes: Brevitas corrects its biases anew for each.
PEERS = {"modelopt": 5, "nncf": 5, "brevitas": 2}
EVERY = 8  # of the scored pictures
AHEAD_DB = 4.0
METHOD = "h200,gptq"

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one toolkit made: logits [choices, pictures, classes]."""

    name: str
    logits: Logits
    wall_s: float
    versions: dict[str, str]


def run(bench: Bench) -> list[Record]:
    """Ours and the peers' ten networks each."""
    reference, labels = bench.float_logits(NETWORK)[::EVERY], bench.sample.labels[::EVERY]
    sides = [ours(bench), *(peer(bench, name) for name in PEERS)]
    sqnr = {side.name: [sqnr_db(reference, each).value for each in side.logits] for side in sides}
    middle = {name: median(values) for name, values in sqnr.items()}
    best_peer = max(middle[side.name] for side in sides[1:])
    drops = [top1_drop_points(reference, each, labels).value for each in sides[0].logits]
    common: dict[str, Any] = {
        "area": "quant",
        "n": CHOICES,
        "peers": {name: version for side in sides for name, version in side.versions.items()},
        "table": [_line(side, sqnr[side.name], reference, labels) for side in sides],
    }
    own = sqnr[sides[0].name]
    return [
        record(
            f"{ROW}.sqnr",
            value=median(own),
            unit="dB",
            reach=Reach("≥", best_peer + AHEAD_DB),
            spread=(min(own), max(own)),
            **common,
        ),
        record(f"{ROW}.top1_drop", value=median(drops), unit="points", spread=(min(drops), max(drops)), **common),
    ]


def ours(bench: Bench) -> Side:
    """Our ten networks, one process each."""
    return _side(f"{OURS} {METHOD}", [_ask(bench, OURS, METHOD, (factor,)) for factor in FACTORS])


def peer(bench: Bench, name: str) -> Side:
    """A peer's ten networks, calibrated once a process, then scaled."""
    step = PEERS[name]
    answers = [_ask(bench, name, "fp8", FACTORS[at : at + step]) for at in range(0, CHOICES, step)]
    return _side(f"{name} fp8", answers)


def _side(name: str, answers: list[dict[str, Any]]) -> Side:
    return Side(
        name=name,
        logits=np.concatenate([np.load(answer["logits"]) for answer in answers]),
        wall_s=sum(answer["wall_s"] for answer in answers),
        versions={} if name.startswith(OURS) else answers[0]["versions"],
    )


def _ask(bench: Bench, name: str, method: str, factors: tuple[float, ...]) -> dict[str, Any]:
    request = Request(
        network=NETWORK,
        method=method,
        float_file=str(bench.float_file(NETWORK)),
        library=str(bench.home / LIBRARY),
        calibration=str(bench.sample.calibration_file),
        scored=str(_scored(bench)),
        folder="",
    )
    question = f"{method}-scales-{factors[0]:.3f}"
    asked = {**asdict(request), "factors": factors}
    return ask(name, question, asked, home=bench.home, cache=bench.peers, worker=f"{name}_fp8")


def _scored(bench: Bench) -> Path:
    file = bench.sample.scored_file.with_name(f"{bench.sample.digest}-scored-every-{EVERY}.npy")
    if not file.exists():
        np.save(file, np.load(bench.sample.scored_file, mmap_mode="r")[::EVERY])
    return file


def _line(side: Side, sqnr: list[float], reference: Logits, labels: npt.NDArray[np.int64]) -> dict[str, str]:
    def shown(values: list[float], digits: int) -> str:
        return f"{median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"

    return {
        "who": side.name,
        "SQNR dB, median [least, most] of the choices": shown(sqnr, 2),
        "agreement %": shown([agreement_percent(reference, each).value for each in side.logits], 1),
        "top-1 drop, points": shown([top1_drop_points(reference, each, labels).value for each in side.logits], 1),
        "wall s": f"{side.wall_s:.0f}",
    }
