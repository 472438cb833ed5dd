"""Will int8 be faster than float? Asked before anything is quantized, answered from the table, then measured.

The int8 kernels follow from the float file and the target's plan alone. Beside it: always yes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.latency.draw import drawn
from bitwright.experiments.benchmarks.latency.measured import latencies
from bitwright.experiments.benchmarks.latency.network_files import TARGET, network_files
from bitwright.experiments.benchmarks.latency.predicted import RUNTIMES, predictor
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.predict.before_compiling import gain_of_graph
from bitwright.hw_constraints.predict.int8_gain import Expectation, Int8Gain
from bitwright.hw_constraints.target import load_target
from bitwright.quant.errors import InputError
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.plan import plan

ROW = "predict_int8_faster"
AREA = "hw_constraints"
_EVEN = 0.02  # a ratio closer to 1 is neither faster nor slower: placements of one file differ by that


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One network on one runtime.

    Attributes:
        name: of the network.
        runtime: the backend's name.
        gain: what was expected.
        float_us: measured.
        int8_us: measured.
    """

    name: str
    runtime: str
    gain: Int8Gain
    float_us: float
    int8_us: float

    @property
    def is_faster(self) -> bool:
        """Whether int8 is, as measured."""
        return self.int8_us < self.float_us

    @property
    def regret_us(self) -> float:
        """What following the likelier side costs beyond the better format."""
        chosen = self.int8_us if self.gain.ratio < 1 else self.float_us
        return chosen - min(self.int8_us, self.float_us)


def run(bench: Bench) -> list[Record]:
    """Asks for every drawn network that has been measured in both formats."""
    answers = [answer for runtime in RUNTIMES for answer in _answers(runtime)]
    if not answers:
        raise InputError("no drawn network has been measured; see experiments/benchmarks/latency/measured.py")
    told = [each for each in answers if each.gain.expectation is not Expectation.UNSURE]
    table = [_line(each) for each in answers]

    def figure(name: str, value: Any, unit: str, n: int = len(answers), reach: Reach | None = None) -> Record:
        return record(f"{ROW}.{name}", area=AREA, value=float(value), unit=unit, n=n, reach=reach, table=table)

    slower = [not each.is_faster for each in answers]
    always = [each.int8_us - min(each.int8_us, each.float_us) for each in answers]
    clear = [each for each in told if abs(math.log(each.int8_us / each.float_us)) > _EVEN]
    return [
        figure("pairs", len(answers), "networks x runtimes", reach=Reach("≥", 120)),
        figure("slower", 100 * np.mean(slower), "% of pairs are slower in int8"),
        figure("balanced_accuracy", balanced_accuracy(told), "of those told", len(told), Reach("≥", 0.95)),
        figure("clear_cases", balanced_accuracy(clear), "of those told that differ by over 2 %", len(clear)),
        figure("always_yes", 0.5, "balanced accuracy of always yes"),
        figure("abstained", 100 * (1 - len(told) / len(answers)), "% of pairs", reach=Reach("≤", 10)),
        figure("regret", np.mean([each.regret_us for each in answers]), "µs, mean"),
        figure("regret_always_yes", np.mean(always), "µs, mean"),
    ]


def balanced_accuracy(told: Sequence[Answer]) -> float:
    """Mean of the share of faster pairs that were called so and of slower ones that were called so."""
    shares = []
    for faster in (True, False):
        side = [each for each in told if each.is_faster == faster]
        if side:
            wanted = Expectation.FASTER if faster else Expectation.SLOWER
            shares.append(np.mean([each.gain.expectation is wanted for each in side]))
    return float(np.mean(shares)) if shares else math.nan


def _answers(runtime: str) -> Iterator[Answer]:
    by, known, scheme = predictor(runtime), latencies(runtime), load_target(TARGET).scheme()
    for variant in drawn():
        measured = [known.get((variant.name, number_format)) for number_format in ("float32", "int8")]
        if any(each is None or each.rejected for each in measured):
            continue
        graph = graph_from_onnx(network_files(variant).files["float32"]).graph
        in_float, in_int8 = (each.us(each.reference_us) for each in measured if each is not None)
        gain = gain_of_graph(by, graph, plan(graph, scheme))
        yield Answer(name=variant.name, runtime=runtime, gain=gain, float_us=in_float, int8_us=in_int8)


def _line(answer: Answer) -> dict[str, object]:
    return {
        "network": answer.name,
        "runtime": answer.runtime,
        "int8 ÷ float": answer.int8_us / answer.float_us,
        "predicted": answer.gain.ratio,
        "from": answer.gain.low,
        "to": answer.gain.high,
        "said": str(answer.gain.expectation),
        "regret µs": answer.regret_us,
    }
