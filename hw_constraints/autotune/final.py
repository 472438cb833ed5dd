"""The last contest: the tuned file against float, full int8 and other people's files; the artefact is never slower."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.autotune.delivery import digest, weights_beside
from bitwright.hw_constraints.autotune.laboratory import FLOAT, Effort, Laboratory
from bitwright.hw_constraints.autotune.placements import Placements
from bitwright.hw_constraints.measure import Ratio
from bitwright.quant.errors import InputError

FULL, TUNED = "full int8", "tuned"
NEVER_SLOWER = 1.03  # upper 95 % bound of the artefact's time against each of the others
_FINAL = Effort(processes=6, half_width=0.005, seconds=1.5)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Files measured against each other in fresh processes.

    Attributes:
        median_us: of each, by its label: `float`, `full int8`, `tuned`, and those of other people's files.
        ratios: of each to each.
    """

    median_us: dict[str, float]
    ratios: dict[tuple[str, str], Ratio]

    def against(self, label: str, others: Collection[str]) -> dict[str, Ratio]:
        """One file's time in relation to others'."""
        return {other: self.ratios[label, other] for other in others}

    def choose(self, first: str, rivals: Collection[str]) -> tuple[str, str]:
        """The artefact, and in words why it is not the first.

        The first one stands unless it is slower than a rival beyond doubt, or not surely within `NEVER_SLOWER` of it;
        then the fastest of all is taken.

        Args:
            first: the label of what the search has found.
            rivals: labels of files that may be taken in its place.
        """
        against = self.against(first, [label for label in rivals if label != first])
        lost = [f"{ratio} of {name}" for name, ratio in against.items() if ratio.low > 1 or ratio.high > NEVER_SLOWER]
        if not lost:
            return first, ""
        choice = min((first, *rivals), key=lambda label: self.median_us[label])
        return choice, f"the tuned file takes {', '.join(lost)}: slower, or not surely within {NEVER_SLOWER}, so " + (
            "the fastest of all is kept" if choice != first else "it is kept only because none was faster"
        )


def check_others(others: Mapping[str, Path]) -> None:
    """Refuses other people's files that cannot be told from ours or are not there.

    Raises:
        InputError: a label is one of ours, or there is no such file, or not all that belongs to it.
    """
    for label, file in others.items():
        if label in (FLOAT, FULL, TUNED):
            raise InputError(f"another file is called {label!r}, as one of autotune's own is; call it something else")
        if not file.is_file():
            raise InputError(f"{label}: {file}: no such file")
        weights_beside(file)


def hold_contest(lab: Laboratory, full: str, best: str) -> Contest:
    """Measures the search's result, float, full int8 and the laboratory's other files against each other."""
    labels = {FLOAT: FLOAT, FULL: full, **({TUNED: best} if best != full else {}), **{o: o for o in lab.others}}
    names = list(labels.values())
    question: dict[str, Any] = {"final": names}
    if lab.others:
        question["others"] = {label: digest(file) for label, file in lab.others.items()}
    answer = lab.journal.ask(question, lambda: {"times_us": lab.measure(names, _FINAL).to_json()})
    measured = Placements.from_json(answer["times_us"])
    labels.setdefault(TUNED, full)
    return Contest(
        median_us={label: measured.median_us(name) for label, name in labels.items()},
        ratios={(a, b): measured.ratio(labels[a], labels[b]) for a in labels for b in labels},
    )
