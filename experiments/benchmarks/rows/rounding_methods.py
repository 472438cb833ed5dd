"""Every rounding method on two small networks, in W4A8: which earn their time, is --auto's order right?

ResNet-20 on patches of road scenes (the network of `w8a8_resnet20`) and a MobileNet on handwritten digits; all layers
in the formats, 200 pictures calibrate, others are scored, on ONNX Runtime. Methods differ in the rounding alone, so
differences are paired picture by picture. Rotations are left out: neither network has a norm or a product that one
could be moved through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.experiments.auto.ladder import ROUNDING_RUNGS
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.metrics import agreement_percent, more_sqnr, sqnr_db
from bitwright.experiments.benchmarks.peers.asking import ask
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, OURS
from bitwright.experiments.benchmarks.peers.workers.exchange import Request
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.benchmarks.trained_networks import TrainedNetwork

ROW = "rounding_methods"
TARGET = "x86-vnni"
WORKER = "bitwright_rounding"
SCHEMES = {"W4A8": "int4,uint8"}
CASES = (("camvid_patches", "W4A8"), ("digits", "W4A8"))
PLAIN, GPTQ = "plain", "gptq"
METHODS = (PLAIN, "nearest", GPTQ, "seqmse", "quantease", "adaround", "brecq", "qdrop")
RUNGS = (PLAIN, *ROUNDING_RUNGS)

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network in one scheme.

    Attributes:
        network: the recipe that trained it.
        scheme: of `SCHEMES`.
        reference: logits in float, [pictures, classes].
        logits: of each method.
        cpu_s: seconds of one core that each method took, calibration included.
    """

    network: str
    scheme: str
    reference: Logits
    logits: Mapping[str, Logits]
    cpu_s: Mapping[str, float]

    @property
    def table(self) -> list[dict[str, str]]:
        """A line for each method."""
        return [self._line(method) for method in self.logits]

    def beats(self, one: str, other: str) -> bool:
        """Whether one method leaves less noise than another, by the whole of the paired interval."""
        return more_sqnr(self.reference, self.logits[one], self.logits[other]).low > 0

    def _line(self, method: str) -> dict[str, str]:
        logits = self.logits[method]
        gain = f"{more_sqnr(self.reference, logits, self.logits[GPTQ]):.2f}"
        return {
            "network": self.network,
            "scheme": self.scheme,
            "method": method,
            "SQNR dB": f"{sqnr_db(self.reference, logits):.2f}",
            "over gptq, dB": "–" if method == GPTQ else gain,
            "agreement %": f"{agreement_percent(self.reference, logits):.2f}",
            "CPU s": f"{self.cpu_s[method]:.1f}",
        }


def run(bench: Bench) -> list[Record]:
    """Answers are kept one by one, so a run that was cut off goes on behind them."""
    return found_in([_case(bench, bench.trained(recipe), recipe, scheme) for recipe, scheme in CASES])


def found_in(cases: Sequence[Case]) -> list[Record]:
    """The figures of all cases."""
    common: dict[str, Any] = {"area": "quant", "table": [line for case in cases for line in case.table]}
    pairs = [(case, cheaper, dearer) for case in cases for cheaper, dearer in pairwise(RUNGS)]
    wrong = sum(case.beats(cheaper, dearer) for case, cheaper, dearer in pairs)
    idle = [m for m in METHODS if m not in (PLAIN, GPTQ) and not any(case.beats(m, GPTQ) for case in cases)]
    return [
        record(
            f"{ROW}.auto_order",
            value=wrong,
            unit="neighbouring roundings of --auto of which the dearer leaves more noise",
            n=len(pairs),
            reach=Reach("=", 0.0),
            **common,
        ),
        record(
            f"{ROW}.never_over_gptq",
            value=len(idle),
            unit=f"methods that leave less noise than GPTQ in no case: {', '.join(idle) or 'none'}",
            n=len(cases),
            **common,
        ),
    ]


def _case(bench: Bench, trained: TrainedNetwork, recipe: str, scheme: str) -> Case:
    answers = {method: _answer(bench, trained, recipe, f"{SCHEMES[scheme]},{method}") for method in METHODS}
    return Case(
        network=recipe,
        scheme=scheme,
        reference=trained.float_logits,
        logits={method: np.load(answer["logits"]) for method, answer in answers.items()},
        cpu_s={method: float(answer["cpu_s"]) for method, answer in answers.items()},
    )


def _answer(bench: Bench, trained: TrainedNetwork, recipe: str, ways: str) -> dict[str, Any]:
    request = Request(
        network=str(trained.description),
        method=f"{TARGET},{ways}",
        float_file=str(trained.float_file),
        library=str(bench.home / LIBRARY),
        calibration=str(trained.calibration),
        scored=str(trained.scored),
        folder="",
    )
    return ask(OURS, f"{request.method}-{recipe}", asdict(request), home=bench.home, cache=bench.peers, worker=WORKER)
