"""Every registered rule fires on its bad cases and is silent on its good ones; `cases/NAME.py` holds them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from bitwright.hw_constraints.lint import load_rule, rule_names
from bitwright.hw_constraints.testing import RuleCase, check_rule_case

CASES = Path(__file__).parent / "cases"
RULES = rule_names()


def _load(rule: str) -> ModuleType | None:
    path = CASES / f"{rule}.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"rule_cases_{rule}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = {rule: _load(rule) for rule in RULES}
ALL = [
    pytest.param(rule, case, id=f"{rule}-{case.name}")
    for rule, module in MODULES.items()
    if module
    for case in (*module.BAD, *module.GOOD)
]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_bad_and_good_cases(rule: str) -> None:
    module = MODULES[rule]
    assert module is not None, f"write {CASES / rule}.py with BAD and GOOD"
    assert all(case.lines for case in module.BAD) and len(module.BAD) >= 2
    assert not any(case.lines for case in module.GOOD) and len(module.GOOD) >= 2


@pytest.mark.parametrize(("rule", "case"), ALL)
def test_it_fires_on_the_bad_and_is_silent_on_the_good(rule: str, case: RuleCase) -> None:
    check_rule_case(rule, case)


@pytest.mark.parametrize("rule", RULES)
def test_its_name_is_its_files_and_its_summary_one_line(rule: str) -> None:
    loaded = load_rule(rule)
    assert loaded.name == rule
    assert loaded.summary and "\n" not in loaded.summary
