"""Every fix removes the finding that it is for, computes the same, and leaves alone what it is not for."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bitwright.hw_constraints.fix import fix
from bitwright.hw_constraints.fixes.base import fix_names, load_fix
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

SPEC = importlib.util.spec_from_file_location("fixes_cases", Path(__file__).with_name("fixes_cases.py"))
assert SPEC and SPEC.loader
cases = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = cases  # dataclasses look their module up
SPEC.loader.exec_module(cases)
CASES, Case = cases.CASES, Any

MADE = [case for case in CASES if not case.refusal]
NOT_MADE = [case for case in CASES if case.refusal]


def name(case: Case) -> str:
    return f"{case.fix}-{case.name}"


@pytest.mark.parametrize("fix_name", fix_names())
def test_every_fix_has_a_network_that_it_fixes(fix_name: str) -> None:
    loaded = load_fix(fix_name)
    assert loaded.name == fix_name and loaded.summary and "\n" not in loaded.summary
    assert any(case.fix == fix_name for case in MADE)


@pytest.mark.parametrize("case", MADE, ids=name)
def test_it_removes_its_finding_and_computes_the_same(case: Case) -> None:
    captured = fold_batch_norm(capture(case.net, case.args))
    loaded = load_fix(case.fix)
    fixed = fix(
        captured,
        load_target(case.target),
        recorded=case.records(),
        fixes=[case.fix],
        approximate=not loaded.exact,
    )
    assert [each.fix for each in fixed.applied], [each.reason for each in fixed.refused]
    for each in fixed.applied:
        assert each.here and each.exact == loaded.exact
        assert each.diff.startswith("--- a/")
    before = {(each.rule, each.node) for each in fixed.before}
    after = {(each.rule, each.node) for each in fixed.after}
    assert all((each.finding.rule, each.finding.node) in before - after for each in fixed.applied)
    # Independent of compare: the user's own network in eager mode.
    with torch.no_grad():
        expected = case.net.eval()(*case.args)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if loaded.exact else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(fixed.captured.run(*case.args), expected, **tolerance)


@pytest.mark.parametrize("case", NOT_MADE, ids=name)
def test_it_leaves_alone_what_it_is_not_for(case: Case) -> None:
    captured = fold_batch_norm(capture(case.net, case.args))
    fixed = fix(captured, load_target(case.target), recorded=case.records(), fixes=[case.fix])
    assert not fixed.applied and fixed.captured is captured
    reasons = [each.reason for each in fixed.refused]
    assert not reasons or any(case.refusal in reason for reason in reasons)
    function = load_fix(case.fix)
    answered = [each for each in fixed.before if each.node in captured.graph.by_name]
    assert reasons or not any(function.answers(each, captured.graph.by_name[each.node]) for each in answered)
