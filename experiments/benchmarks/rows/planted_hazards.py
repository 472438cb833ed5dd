"""Hazards planted into driving-style networks: how many the linter names, and how much of what it says is true.

They were written from the accelerators' documents before their author had read a rule. What the linter says about the
clean networks was judged by hand, line by line; `tests/driving` holds hazards and judgements.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.hazards import (
    Hazard,
    Judgement,
    added,
    findings_of,
    read_accepted,
    read_hazards,
    read_judgements,
    read_withdrawn,
    serious,
)
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.experiments.console import Console
from bitwright.hw_constraints.finding import Finding

ROW = "planted_hazards"
AREA = "hw_constraints"


def run(bench: Bench) -> list[Record]:
    """Plants each hazard, then listens to the clean networks."""
    torch.set_num_threads(1)
    withdrawn = read_withdrawn()
    hazards = [each for each in read_hazards() if each.name not in withdrawn]
    missed: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder, Console().track("hazards", len(hazards)) as advance:
        for done, hazard in enumerate(hazards, 1):
            missed += _miss(hazard, Path(folder))
            advance(done, hazard.name)
    missed += [{"hazard": name, "why": f"withdrawn: {why}"} for name, why in withdrawn.items()]
    pairs = sorted({(hazard.network, hazard.target) for hazard in hazards})
    said = [(network, each) for network, target in pairs for each in serious(findings_of(network, target))]
    return [_recall(hazards, missed, len(withdrawn)), *_precision(said, read_judgements())]


def _miss(hazard: Hazard, folder: Path) -> list[dict[str, str]]:
    """A line for the table when no rule calls the hazard by its name on its line; else nothing."""
    found = serious(added(hazard, folder))
    if any(each.rule in read_accepted()[hazard.name] for each in found):
        return []
    others = ", ".join(sorted({each.rule for each in found})) or "nothing"
    return [{"hazard": hazard.name, "why": f"{hazard.words}, on {hazard.target}: {others} instead"}]


def _recall(hazards: Sequence[Hazard], table: Sequence[dict[str, str]], withdrawn: int) -> Record:
    missed = len(table) - withdrawn
    return record(
        f"{ROW}.recall",
        area=AREA,
        value=1 - missed / len(hazards),
        unit="of the hazards",
        n=len(hazards),
        reach=Reach("≥", 0.95),
        table=table,
    )


def _precision(said: Sequence[tuple[str, Finding]], judgements: Sequence[Judgement]) -> list[Record]:
    verdicts: Counter[tuple[str, str]] = Counter()
    for network, finding in said:
        verdict = next((each for each in judgements if each.fits(network, finding)), None)
        word = "not judged" if verdict is None else "true" if verdict.holds else "false"
        verdicts[finding.rule, word] += 1
    true = sum(count for (_, word), count in verdicts.items() if word == "true")
    false = sum(count for (_, word), count in verdicts.items() if word == "false")
    rules = sorted({rule for rule, _ in verdicts})
    table = [
        {"rule": rule, **{word: str(verdicts[rule, word]) for word in ("true", "false", "not judged")}}
        for rule in rules
    ]
    return [
        record(
            f"{ROW}.precision",
            area=AREA,
            value=true / (true + false),
            unit="of the errors and warnings on the clean networks",
            n=true + false,
            reach=Reach("≥", 0.9),
            table=table,
        ),
        record(
            f"{ROW}.not_judged",
            area=AREA,
            value=float(len(said) - true - false),
            unit="errors and warnings that nobody has judged",
            n=len(said),
            reach=Reach("=", 0),
            table=table,
        ),
    ]
