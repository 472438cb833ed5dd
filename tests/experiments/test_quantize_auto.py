"""`bitwright quantize --auto`: the cheapest method that keeps the gate, resumed when killed, given by its recipe."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from bitwright.experiments.auto.command import Goal, quantize_model_auto
from bitwright.experiments.auto.judging import nearness, shortfall
from bitwright.experiments.auto.result import AutoResult, Try
from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.results import EvaluateResult
from bitwright.experiments.run import run_recipe
from bitwright.hw_constraints.figures import Gate
from bitwright.quant.errors import InputError

OWN = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)
    ).eval()

def pictures(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 3, 12, 12, generator=generator) for _ in range(count)]

def one_loader():
    return pictures(48, 1)

def data():
    return {"calibrate": pictures(24, 1), "evaluate": pictures(24, 2)}

def labelled():
    return {name: [(x, x.mean((1, 2, 3)).gt(0).long()) for x in part] for name, part in data().items()}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    module = f"auto_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return module


def auto(here: str, goal: Goal, data: str = "data", out: str = "run", minutes: float = 5.0) -> AutoResult:
    network, console = f"{here}:network", Console(quiet=True)
    _, result, _ = quantize_model_auto(
        network, "x86-vnni", f"{here}:{data}", Path(out), goal, minutes=minutes, console=console
    )
    return result


def initializers(file: Path) -> dict[str, np.ndarray]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer}


def sqnr_of(done: Try) -> float:
    assert done.evaluated is not None
    return done.evaluated.sqnr.value


def test_it_stops_at_the_first_that_passes_and_its_recipe_gives_the_same_codes(here: str) -> None:
    cheapest = auto(here, Goal(min_sqnr=10), out="first")
    assert [each.rung for each in cheapest.tries] == ["nearest"] and cheapest.passed
    wanted = sqnr_of(cheapest.tries[0]) + 1e-3  # what the first one just misses
    result = auto(here, Goal(min_sqnr=wanted))
    *failed, last = result.tries
    assert failed and all(sqnr_of(each) < wanted for each in failed)
    assert last.status == "passed" and sqnr_of(last) >= wanted and result.chosen == len(failed)
    again = load_recipe("run/recipe.resolved.yaml")
    run_recipe(again, Path("again"), until="evaluate", console=Console(quiet=True))
    first, second = (initializers(Path(each) / "stages/quantize/quantized.onnx") for each in ("run", "again"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    record = json.loads(Path("run/record.json").read_text())
    assert AutoResult.model_validate(record["stages"]["auto"]["result"]) == result
    assert record["passed"] is True and record["gates"][0]["name"] == "SQNR of the results, dB"
    assert EvaluateResult.model_validate(record["stages"]["evaluate"]["result"]) == last.evaluated


@pytest.mark.slow
def test_a_gate_that_nothing_meets_ends_with_the_nearest_and_exit_code_1(here: str) -> None:
    arguments = ("--target", "x86-vnni", "--data", f"{here}:data", "--auto", "--min-sqnr", "1000", "--out", "run")
    done = bitwright("quantize", f"{here}:network", *arguments)
    assert done.returncode == 1, done.stderr
    result = AutoResult.model_validate(json.loads(Path("run/record.json").read_text())["stages"]["auto"]["result"])
    scored = [each for each in result.tries if each.is_scored]
    assert result.tries[result.chosen] == max(scored, key=sqnr_of) and not result.passed
    text = "no try keeps the gate (SQNR of the results, dB >= 1000), and nothing is left to try; the nearest is "
    assert done.stdout.startswith(text) and "SQNR" in done.stdout.splitlines()[0].removeprefix(text)
    assert Path("run/stages/quantize/quantized.onnx").is_file()
    lines = [line for line in done.stderr.splitlines() if re.match(r"  \d+\. ", line)]
    assert len(lines) == len(result.tries)
    assert all(re.search(r": (failed|refused)", line) for line in lines)
    assert any("nothing in the network is quantized" in each.reason for each in result.tries)


def bitwright(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bitwright.experiments.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_killed_search_goes_on_with_what_it_had(here: str) -> None:
    arguments = ["quantize", f"{here}:network", "--target", "x86-vnni", "--data", f"{here}:data"]
    arguments += ["--auto", "--min-sqnr", "1000", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bitwright.experiments.cli", *arguments], stderr=subprocess.PIPE, env={**os.environ}
    )
    limit = time.monotonic() + 120
    while len(list(Path("run/tries").glob("*.json"))) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in Path("run/tries").glob("*.json")}
    assert len(kept) >= 2
    result = auto(here, Goal(min_sqnr=1000))
    assert {name: (Path("run/tries") / name).stat().st_mtime_ns for name in kept} == kept
    assert len([each for each in result.tries if each.is_scored]) > len(kept)


def test_what_calibrates_is_not_scored(here: str, capsys: pytest.CaptureFixture[str]) -> None:
    network, data = f"{here}:network", f"{here}:one_loader"
    _, result, _ = quantize_model_auto(
        network, "x86-vnni", data, Path("run"), Goal(min_agreement=50), minutes=5, console=Console()
    )
    evaluated = result.tries[0].evaluated
    assert evaluated is not None and evaluated.metric == "agreement"  # these data have no labels
    assert (result.tries[0].calibrated, evaluated.sqnr.n) == (24, 24)
    assert "calibrate.samples = 24: the data give the same 48 samples" in capsys.readouterr().err


def test_with_labels_the_drop_decides_and_carries_its_interval(here: str) -> None:
    result = auto(here, Goal(max_drop=100), data="labelled")
    evaluated = result.tries[0].evaluated
    assert result.passed and evaluated is not None and evaluated.metric == "top1"
    assert evaluated.drop.low is not None and evaluated.drop.low <= evaluated.drop.value
    assert evaluated.agreement is not None and evaluated.agreement.low is not None


def test_time_that_ends_in_the_first_try_is_said(here: str) -> None:
    with pytest.raises(InputError, match=r"^--minutes = 1e-05: the time was up before the first try was scored; what"):
        auto(here, Goal(min_sqnr=10), minutes=1e-5)


@pytest.mark.parametrize(
    ("goal", "minutes", "message"),
    [
        (Goal(), 1, "--auto needs to know what is good enough: give --max-drop, --min-agreement or --min-sqnr, or a "),
        (Goal(min_sqnr=10), 0, "--minutes = 0; expected a number above 0"),
        (Goal(min_agreement=101), 1, "--min-agreement = 101; expected percent, above 0 and at most 100"),
        (Goal(max_drop=-1), 1, "--max-drop = -1; expected a number of at least 0"),
        (Goal(min_sqnr=float("inf")), 1, "--min-sqnr = inf; expected decibels, such as 25"),
        (Goal(max_drop=1), 1, "--max-drop needs labels, and the data have none (data: a batch is Tensor without lab"),
    ],
)
def test_goals_that_are_none(here: str, goal: Goal, minutes: float, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        auto(here, goal, minutes=minutes)


def test_a_goal_without_auto_is_refused(here: str) -> None:
    done = bitwright("quantize", f"{here}:network", "--target", "x86-vnni", "--data", f"{here}:data", "--max-drop", "1")
    assert (done.returncode, done.stderr) == (2, "bitwright: --max-drop = 1 is for --auto; add it\n")
    assert not Path("runs").exists()


def test_the_nearest_misses_least() -> None:
    assert shortfall(Gate(name="g", value=0.7, at_most=0.5)) == pytest.approx(0.2)
    assert shortfall(Gate(name="g", value=0.98, at_least=0.97)) == 0
    assert shortfall(Gate(name="g", value=None, at_least=0.97)) == float("inf")


def scored(missing: tuple[float, ...], sqnr: float, evaluated: EvaluateResult) -> Try:
    found = evaluated.model_copy(update={"sqnr": evaluated.sqnr.model_copy(update={"value": sqnr})})
    return Try(rung="r", what="", why="", status="failed", evaluated=found, missing=missing)


def test_fewer_failed_gates_come_before_smaller_misses(here: str) -> None:
    evaluated = auto(here, Goal(min_sqnr=1)).tries[0].evaluated
    assert evaluated is not None
    near, far, two = (scored(*each, evaluated) for each in (((0.1, 0.0), 20), ((0.2, 0.0), 30), ((0.01, 0.01), 40)))
    assert sorted((two, far, near), key=nearness) == [near, far, two]
