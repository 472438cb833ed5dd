"""Hazards planted into the driving-style networks, and what the linter says about the edited source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bitwright.experiments.benchmarks import driving, places
from bitwright.experiments.lint_command import Captured, capture_for_lint, lint_captured
from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.target import load_target
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """An edit of a network's source that hurts on an accelerator.

    Attributes:
        name: of the hazard.
        network: which network is edited.
        target: the accelerator.
        edits: pairs (old, new); every occurrence is replaced.
        at: parts of the edited lines; a finding has to stand on a line that holds one of them.
        words: what an expert calls it.
    """

    name: str
    network: str
    target: str
    edits: tuple[tuple[str, str], ...]
    at: tuple[str, ...]
    words: str

    def plant(self, folder: Path) -> Path:
        """Writes the edited source into a folder.

        Raises:
            InputError: an edit or a line does not fit the network's source any more.
        """
        text = driving.source_file(self.network).read_text(encoding="utf-8")
        for old, new in self.edits:
            if old not in text:
                raise InputError(
                    f"hazard {self.name!r}: {self.network}.py has no {old!r}; adapt tests/driving/hazards.yaml"
                )
            text = text.replace(old, new)
        for part in self.at:
            if not any(part in line for line in text.splitlines()):
                raise InputError(
                    f"hazard {self.name!r}: no edited line holds {part!r}; adapt tests/driving/hazards.yaml"
                )
        file = folder / f"{self.name.replace('-', '_')}.py"
        file.write_text(text, encoding="utf-8")
        return file

    def is_at(self, finding: Finding) -> bool:
        """Whether a finding stands on one of the hazard's lines."""
        return finding.source is not None and any(part in finding.source.text for part in self.at)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether what a rule says about a clean network is true, as a person judged it.

    Attributes:
        rule: the rule.
        holds: whether it is.
        why: the reason.
        network: on which network; empty for all.
        target: on which accelerator; empty for all.
        said: a part of what was found; empty for whatever it is.
        line: a part of the line; empty for all.
    """

    rule: str
    holds: bool
    why: str
    network: str = ""
    target: str = ""
    said: str = ""
    line: str = ""

    def fits(self, network: str, finding: Finding) -> bool:
        """Whether it speaks about a finding."""
        text = finding.source.text if finding.source else ""
        return (
            finding.rule == self.rule
            and self.network in ("", network)
            and self.target in ("", finding.target)
            and self.said in finding.found
            and self.line in text
        )


def read_hazards() -> tuple[Hazard, ...]:
    """All that are written down in `tests/driving/hazards.yaml`."""
    return tuple(_hazard(entry) for entry in _read("hazards.yaml"))


@cache
def read_accepted() -> dict[str, frozenset[str]]:
    """By a hazard's name the rules that call it by its name."""
    return {name: frozenset(rules) for name, rules in _read("hazard_rules.yaml")["rules"].items()}


def read_withdrawn() -> dict[str, str]:
    """Hazards that are none after all, and what refutes them."""
    return dict(_read("hazard_rules.yaml")["withdrawn"])


def read_judgements() -> tuple[Judgement, ...]:
    """What was judged by hand; of several that fit a finding the first counts."""
    return tuple(Judgement(**entry) for entry in _read("clean_findings.yaml"))


def _read(name: str) -> Any:
    return yaml.safe_load((places.checkout() / "tests" / "driving" / name).read_text(encoding="utf-8"))


def _hazard(entry: dict[str, Any]) -> Hazard:
    return Hazard(
        name=entry["id"],
        network=entry["network"],
        target=entry["target"],
        edits=tuple((edit["old"], edit["new"]) for edit in entry["edits"]),
        at=tuple(entry["at"]),
        words=entry["words"],
    )


def serious(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors and warnings."""
    return tuple(each for each in findings if each.severity is not Severity.INFO)


@cache
def findings_of(network: str, target: str, file: Path | None = None) -> tuple[Finding, ...]:
    """What the linter says about a network, or an edited copy of its source, on an accelerator."""
    return lint_captured(_captured(network, file), load_target(target))


@cache
def _captured(network: str, file: Path | None) -> Captured:
    loaded = driving.load(network, file)
    return capture_for_lint(loaded.model, loaded.args)


def added(hazard: Hazard, folder: Path) -> tuple[Finding, ...]:
    """The findings on the lines of a hazard that the clean network has not: other rules, lines or words."""
    before = {
        (each.rule, each.found, each.source.text) for each in findings_of(hazard.network, hazard.target) if each.source
    }
    after = findings_of(hazard.network, hazard.target, hazard.plant(folder))
    return tuple(
        each
        for each in after
        if each.source and hazard.is_at(each) and (each.rule, each.found, each.source.text) not in before
    )
