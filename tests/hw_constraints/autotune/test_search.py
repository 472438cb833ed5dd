"""The search in a laboratory whose times are known: what it finds, what it spends, what it refuses."""

import itertools
import json

import numpy as np
import pytest

from bitwright.hw_constraints.autotune.decision import Decision
from bitwright.hw_constraints.autotune.fidelity import Fidelity
from bitwright.hw_constraints.autotune.laboratory import Budget
from bitwright.hw_constraints.autotune.search import Search


def times(candidates, seed: int) -> dict[str, dict[str, float]]:
    generator = np.random.default_rng(seed)
    names = list(candidates.sites.by_name)
    return {
        each: dict(zip(names, generator.uniform(5, 50, len(names)), strict=True)) for each in ("float_us", "int8_us")
    }


def best_of_all(lab) -> float:
    """By trying every assignment."""
    names = list(lab.candidates.sites.by_name)
    found = []
    for mask in itertools.product((0, 1), repeat=len(names)):
        decision = Decision(floats=frozenset(itertools.compress(names, mask)))
        lab._decisions["every"] = decision
        found.append(lab.true_us("every"))
    return min(found)


@pytest.mark.parametrize("seed", range(3))
def test_it_comes_to_the_best_assignment(candidates, laboratory, seed):
    lab = laboratory(**times(candidates, seed), price=0.01)
    best = Search(lab=lab).run()
    assert lab.true_us(lab.name(best)) <= 1.01 * best_of_all(lab)
    assert lab.tries <= 40


def test_where_int8_is_best_everywhere_it_stays(candidates, laboratory):
    slow = dict.fromkeys(candidates.sites.by_name, 30.0)
    lab = laboratory(float_us=slow, int8_us={name: 10.0 for name in slow}, price=0.01)
    search = Search(lab=lab)
    assert search.run() == Decision()
    assert search.steps == [Decision()]


def test_nobody_wins_by_luck(candidates, laboratory, tmp_path):
    """All files take equally long; each process shifts each of them by 3 %."""
    same = dict.fromkeys(candidates.sites.by_name, 20.0)
    wrong = 0
    for seed in range(5):
        (tmp_path / "tries.jsonl").unlink(missing_ok=True)
        lab = laboratory(float_us=same, int8_us=same, noise=0.03)
        lab._random = np.random.default_rng(seed)
        search = Search(lab=lab)
        search.run()
        wrong += len(search.steps) - 1
        looked = [m for m in lab.measured if len(m) == 2]
        assert looked, "nothing looked faster in any race: the case tests nothing"
    assert wrong <= 3  # of some forty confirmations, each of which 2.5 % may pass


def test_the_budget_is_kept(candidates, laboratory):
    lab = laboratory(**times(candidates, 0), price=0.01, budget=Budget(tries=7))
    Search(lab=lab).run()
    assert lab.tries == 7
    lines = [json.loads(line) for line in lab.journal.path.read_text().splitlines()]
    assert sorted(line["try"] for line in lines if "try" in line) == list(range(1, 8))


def test_no_time_is_no_try(candidates, laboratory):
    lab = laboratory(**times(candidates, 0), budget=Budget(minutes=0.0))
    assert Search(lab=lab).run() == Decision()
    assert lab.measured == []


def test_stopped_anywhere_it_goes_the_same_way_on(candidates, laboratory):
    whole = laboratory(**times(candidates, 1), price=0.01)
    wanted = Search(lab=whole).run()
    lines = whole.journal.path.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines), 3):
        whole.journal.path.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
        again = laboratory(**times(candidates, 1), price=0.01)
        recorded = sum(b'"purpose"' in line for line in lines[:kept])
        assert Search(lab=again).run() == wanted
        assert len(again.measured) <= len(whole.measured) - recorded
    final = laboratory(**times(candidates, 1), price=0.01)
    Search(lab=final).run()
    assert final.measured == []


def test_a_faster_file_that_is_less_faithful_is_refused_with_the_reason(candidates, laboratory):
    given = times(candidates, 2)
    full = laboratory(**given).name(Decision())

    def accuracy(name: str) -> Fidelity:
        return Fidelity(agreement=(), sqnr_db=tuple(np.linspace(20, 24, 30) - (0.0 if name == full else 3.0)))

    lab = laboratory(**given, price=0.01, accuracy=accuracy)
    search = Search(lab=lab)
    assert search.run() == Decision()
    outcomes = [json.loads(line).get("outcome", "") for line in lab.journal.path.read_text().splitlines()]
    assert any("less faithful than full int8: SQNR falls by 3.00 dB" in each for each in outcomes)


def test_a_model_of_latency_orders_what_is_tried(candidates, laboratory):
    given, asked = times(candidates, 0), []

    def predict(file):
        asked.append(file.stem)
        return float(len(asked))

    lab = laboratory(**given, price=0.01)
    lab.file = lambda name: lab.folder / f"{name}.onnx"
    Search(lab=lab, predict=predict).run()
    assert asked
