import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.run import run_recipe
from bitwright.experiments.search_result import SearchResult
from bitwright.quant.errors import InputError

SMALL = (
    "target=x86-vnni",
    "model.depth=1",
    "data.size=16",
    "calibrate.samples=16",
    "evaluate.samples=60",
    "search.train.epochs=1",
    "search.train.batch=256",
    "search.objectives=[accuracy, macs]",
    "search.space={kind: mobile_conv, width: [0.25, 0.5], formats: [int8, int16], stages: 2}",
)


def searched(folder: Path, trials: int) -> SearchResult:
    recipe = load_recipe("digits_search", [*SMALL, f"search.trials={trials}"])
    record = run_recipe(recipe, folder, until="search", console=Console(quiet=True))
    return SearchResult.model_validate(record.stages["search"].result)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("search-*/results/*.json")}


@pytest.mark.slow
def test_a_killed_search_goes_on_and_a_finished_one_is_reused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bitwright.experiments.cli", "search", "digits_search", *SMALL]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen([*command, "search.trials=8", "--out", str(tmp_path)], env=environment)
    deadline = time.monotonic() + 120
    while not any(each["outcome"] == "scored" for each in results(tmp_path).values()):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = results(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("search-*/results/*.json")}

    found = searched(tmp_path, trials=8)
    assert len(found.outcome.results) == 8  # the whole space
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert before.items() <= results(tmp_path).items()
    infeasible = [each for each in found.outcome.results if each.violations]
    assert len(infeasible) == 6  # all but int8 throughout
    assert {each.trained_seconds for each in infeasible} == {0.0}
    assert all("planned as int16" in each.violations[0].reason for each in infeasible)
    assert searched(tmp_path, trials=8) == found


def test_a_recipe_without_a_search_is_refused(tmp_path: Path) -> None:
    from bitwright.experiments.search_command import run_search

    with pytest.raises(InputError, match="recipe 'digits_search' has no search section; add one"):
        run_search("digits_search", ["search=null"], tmp_path, quiet=True)
