"""The planted hazards: each edit fits its network, each is mapped to rules that there are, and most are found."""

from pathlib import Path

import pytest
import torch

from bitwright.experiments.benchmarks.hazards import (
    Hazard,
    Judgement,
    added,
    read_accepted,
    read_hazards,
    read_judgements,
    read_withdrawn,
)
from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint import rule_names
from bitwright.hw_constraints.target import list_targets
from bitwright.quant.errors import InputError
from bitwright.quant.graph import SourceLine

HAZARDS = read_hazards()


def test_there_are_enough_and_each_has_its_rules() -> None:
    names = [hazard.name for hazard in HAZARDS]
    assert len(set(names)) == len(names)
    assert len(names) - len(read_withdrawn()) >= 60
    assert set(read_accepted()) | set(read_withdrawn()) == set(names)
    assert not set(read_accepted()) & set(read_withdrawn())
    known = {rule for rules in read_accepted().values() for rule in rules} | {each.rule for each in read_judgements()}
    assert known <= set(rule_names())
    assert {hazard.target for hazard in HAZARDS} <= set(list_targets())


@pytest.mark.parametrize("hazard", HAZARDS, ids=lambda hazard: hazard.name)
def test_its_edit_fits_the_source(hazard: Hazard, tmp_path: Path) -> None:
    file = hazard.plant(tmp_path)
    compile(file.read_text(), str(file), "exec")


def test_an_edit_that_does_not_fit_any_more_is_named(tmp_path: Path) -> None:
    hazard = Hazard(name="x", network="raft_flow", target="h200", edits=(("gone", "new"),), at=(), words="")
    with pytest.raises(InputError, match=r"hazard 'x': raft_flow\.py has no 'gone'; adapt tests/driving/hazards\.yaml"):
        hazard.plant(tmp_path)


@pytest.mark.parametrize("name", ["early-exit", "python-counter", "argument-written", "kernel-33", "masked-write"])
def test_it_is_called_by_its_name_on_its_line(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    (hazard,) = [each for each in HAZARDS if each.name == name]
    assert read_accepted()[name] & {each.rule for each in added(hazard, tmp_path)}


def test_a_judgement_fits_by_rule_network_words_and_line() -> None:
    finding = Finding(
        rule="dtype",
        severity=Severity.ERROR,
        node="to",
        found="to makes float64",
        allowed="",
        suggestion="",
        source=SourceLine("net.py", 3, "x = x.double()"),
    )
    assert Judgement(rule="dtype", holds=True, why="", said="float64", line="double").fits("net", finding)
    for other in (
        Judgement(rule="dynamic_shape", holds=True, why=""),
        Judgement(rule="dtype", holds=True, why="", network="raft_flow"),
        Judgement(rule="dtype", holds=True, why="", said="int64"),
        Judgement(rule="dtype", holds=True, why="", line="x.long()"),
    ):
        assert not other.fits("net", finding)
