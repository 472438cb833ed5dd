"""One network quantized by everybody in one run, each in a process of its own: how near, how much in int8, how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.metrics import Estimate
from bitwright.experiments.benchmarks.peers.driver import PeerJob, PeerResult, run_peer
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.proof import State, prove

Logits = npt.NDArray[np.float32]
AREA = "quant"
SQNR = "SQNR dB"
AGREEMENT = "agreement %"
WALL = "wall s"
MACS, ADDITIONS = "MACs in int8 %", "adds in int8 %"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """What one side made.

    Attributes:
        result: its answer.
        figures: how near it is, by the column of the table.
        in_int8: what ONNX Runtime runs of its file in int8; empty without an ONNX file, or where nobody asked.
    """

    result: PeerResult
    figures: Mapping[str, Estimate]
    in_int8: Mapping[str, float]

    @property
    def wall_s(self) -> float:
        """From the float network to its artefact, imports and loading excluded."""
        return self.result.answer.wall_s

    @property
    def line(self) -> dict[str, str]:
        """For the table."""
        return {
            "who": self.result.job.name,
            **{column: f"{figure:.2f}" for column, figure in self.figures.items()},
            **{column: f"{share:.1f}" for column, share in self.in_int8.items()},
            WALL: f"{self.wall_s:.1f}",
        }


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Everybody on one network.

    Attributes:
        everybody: in the order in which they were asked for.
    """

    everybody: Sequence[Contestant]

    @property
    def ours(self) -> Contestant:
        """The first of our sides."""
        return next(each for each in self.everybody if each.result.job.peer == OURS)

    @property
    def peers(self) -> list[Contestant]:
        """All that are not ours."""
        return [each for each in self.everybody if each.result.job.peer != OURS]

    def best_peer(self, column: str = SQNR) -> Contestant:
        """The peer with the largest figure."""
        return max(self.peers, key=lambda each: each.figures[column].value)

    @property
    def table(self) -> list[dict[str, str]]:
        """A line for each."""
        return [each.line for each in self.everybody]

    @property
    def versions(self) -> dict[str, str]:
        """Of everybody's packages."""
        return {name: version for each in self.everybody for name, version in each.result.answer.versions.items()}


def hold(
    jobs: Sequence[PeerJob],
    score: Callable[[Logits], Mapping[str, Estimate]],
    *,
    home: Path,
    cache: Path,
    prove_int8: bool = True,
) -> Contest:
    """Quantizes anew, one after the other, so that times are of one run; then scores and proves.

    Args:
        jobs: what to run; all have the same images to score.
        score: figures of a side's logits, `SQNR` among them.
        home: the peers' environments.
        cache: where results are kept.
        prove_int8: whether to ask ONNX Runtime what it runs in int8 (nothing, of weights in four bits).
    """
    results = [run_peer(job, home=home, cache=cache, fresh=True) for job in jobs]
    return Contest(everybody=[_contestant(result, score, prove_int8) for result in results])


def _contestant(result: PeerResult, score: Callable[[Logits], Mapping[str, Estimate]], prove_int8: bool) -> Contestant:
    assert result.job.scored is not None
    return Contestant(
        result=result,
        figures=score(result.score(result.job.scored)),
        in_int8=in_int8(result.file) if prove_int8 else {},
    )


def in_int8(file: Path | None) -> dict[str, float]:
    """What ONNX Runtime runs of an ONNX file in int8: % of convolutions' and linear layers' MACs, and of additions."""
    if file is None or file.suffix != ".onnx":
        return {}
    report = prove(file, "onnxruntime", runs=2)
    additions = [layer.state for layer in report.layers if layer.op == "Add" and not layer.is_weighted]
    shares = {MACS: 100.0 * report.int8_mac_share}
    if additions:
        shares[ADDITIONS] = 100.0 * additions.count(State.INT8) / len(additions)
    return shares


def records_of(row: str, contest: Contest, *, n: int, reaches: Mapping[str, Reach]) -> list[Record]:
    """Our figures, each with what it has to reach, if anything.

    Args:
        row: its name.
        contest: what came of it.
        n: how many images were scored.
        reaches: by the column of the table; `WALL` for the time.
    """
    ours = contest.ours
    shared: dict[str, Any] = {"area": AREA, "peers": contest.versions, "table": contest.table}

    def figure(column: str, value: float, count: int, spread: tuple[float, float] | None = None) -> Record:
        words, _, unit = column.rpartition(" ")
        name = "_".join(words.lower().replace("-", "").replace(",", "").split())
        reach = reaches.get(column)
        return record(f"{row}.{name}", value=value, unit=unit, n=count, reach=reach, spread=spread, **shared)

    return [
        *(figure(column, found.value, n, found.interval) for column, found in ours.figures.items()),
        *(figure(column, share, 1) for column, share in ours.in_int8.items()),
        figure(WALL, ours.wall_s, 1),
    ]
