import errno
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bitwright.experiments import ingredients
from bitwright.experiments import run as engine
from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.run import disk_is_full, load_stages, needed_for, run_recipe
from bitwright.experiments.stage import Context, Stage
from bitwright.quant.errors import InputError

SCRIPT = Path(__file__).with_name("fake_stages.py")
RECIPE = load_recipe("digits")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_stages", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_stages"] = module
    spec.loader.exec_module(module)
    return module


fake = _load(SCRIPT)


@pytest.fixture(autouse=True)
def fake_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "load_stages", lambda: fake.STAGES)


def go(folder: Path, *overrides: str, **options: Any) -> dict[str, str]:
    record = run_recipe(load_recipe("digits", overrides), folder, console=Console(quiet=True), **options)
    return {name: stage.status for name, stage in record.stages.items()}


def ran(folder: Path) -> list[str]:
    log = folder.parent / "log.txt"
    return log.read_text().split() if log.exists() else []


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SCRIPT, folder], env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    )


def wait_until_it_waits(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not (folder.parent / "waiting").exists():
        assert time.monotonic() < deadline, "the stage never began"
        time.sleep(0.05)


def test_a_second_run_repeats_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert go(folder) == {"first": "done", "middle": "done", "last": "done"}
    assert go(folder) == {"first": "reused", "middle": "reused", "last": "reused"}
    assert ran(folder) == ["first", "middle", "last"]


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("seed=1", ["first", "middle", "last"]),  # the seed is part of everything
        ("calibrate.samples=10", ["middle", "last"]),
        ("description=other", ["last"]),
        ("measure.threads=2", []),
    ],
)
def test_only_what_follows_from_a_change_runs_again(tmp_path: Path, override: str, again: list[str]) -> None:
    folder = tmp_path / "run"
    go(folder)
    go(folder, override)
    assert ran(folder) == ["first", "middle", "last", *again]


def test_a_stage_says_why_it_runs_again(tmp_path: Path) -> None:
    go(tmp_path / "run")
    record = run_recipe(load_recipe("digits", ["calibrate.samples=10"]), tmp_path / "run", console=Console(quiet=True))
    assert record.stages["middle"].reason == "changed: recipe calibrate"
    assert record.stages["last"].reason == "changed: stage middle"


@pytest.mark.parametrize("part", ["code", "versions", "lost file", "cut file", "broken manifest"])
def test_other_reasons_to_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    folder = tmp_path / "run"
    go(folder)
    if part == "code":
        monkeypatch.setattr(ingredients, "code_hash", lambda stage: "changed")
    elif part == "versions":
        from dataclasses import replace

        changed = [replace(each, packages=("python",)) for each in fake.STAGES]
        monkeypatch.setattr(engine, "load_stages", lambda: changed)
    elif part == "lost file":
        (folder / "stages" / "first" / "out.txt").unlink()
    elif part == "cut file":
        (folder / "stages" / "first" / "out.txt").write_text("who")
    else:
        (folder / "stages" / "first" / "manifest.json").write_text('{"key": ')
    assert go(folder)["first"] == "done"


def test_again_runs_a_stage_and_keeps_what_has_not_changed(tmp_path: Path) -> None:
    go(tmp_path / "run")
    assert go(tmp_path / "run", again=["middle"]) == {"first": "reused", "middle": "done", "last": "reused"}
    with pytest.raises(InputError, match=r"unknown stage 'midle'; there are: .*"):
        go(tmp_path / "run", again=["midle"])


def test_kill_9_loses_nothing_that_was_finished_and_a_half_written_stage_never_counts(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, WAIT="1")
    wait_until_it_waits(folder)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (folder / "stages" / ".middle.partial" / "half.txt").read_text() == "half"
    assert not (folder / "stages" / "middle").exists()
    assert go(folder) == {"first": "reused", "middle": "done", "last": "done"}
    assert ran(folder) == ["first", "middle", "middle", "last"]
    assert (folder / "stages" / "middle" / "half.txt").read_text() == "whole"
    assert not list((folder / "stages").glob(".*"))


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, WAIT="1")
    wait_until_it_waits(folder)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert not (folder / "stages" / ".middle.partial").exists()
    assert go(folder) == {"first": "reused", "middle": "done", "last": "done"}


def test_two_runs_at_once_in_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, WAIT="1")
    try:
        wait_until_it_waits(folder)
        message = (
            f"{folder}: process {process.pid} is running in this folder; wait for it, or name another folder with --out"
        )
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            go(folder)
        assert (folder / "stages" / ".middle.partial" / "half.txt").exists()
    finally:
        process.kill()
        process.wait()


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"

    def fill(context: Context) -> Any:
        (context.folder / "part.bin").write_bytes(b"0" * 100)
        with Path("/dev/full").open("wb") as full:
            full.write(b"0" * 100_000)

    stages = (fake.STAGES[0], Stage(name="middle", run=fill, result=fake.Told, needs=("first",), packages=()))
    monkeypatch.setattr(engine, "load_stages", lambda: stages)
    message = (
        f"{folder}: no space left on the disk while stage 'middle' was writing; free some and run the same command "
        "again: finished stages are kept"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        go(folder)
    assert sorted(path.name for path in (folder / "stages").iterdir()) == ["first"]
    monkeypatch.setattr(engine, "load_stages", lambda: fake.STAGES)
    assert go(folder)["first"] == "reused"


def test_a_full_disk_is_recognised_behind_other_librarys_errors() -> None:
    wrapped = RuntimeError("write failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert disk_is_full(wrapped)
    assert disk_is_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not disk_is_full(OSError(errno.EACCES, "Permission denied"))
    assert not disk_is_full(None)


def test_folders_that_are_not_free(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    cases = {
        other: "not empty, and no run of Bitwright; name another folder with --out",
        Path("/proc/run"): "not writable (No such file or directory); name another folder with --out",
    }
    file = tmp_path / "file"
    file.write_text("mine")
    cases[file] = "is a file; name another folder with --out"
    cases[file / "run"] = "not a folder; name another one with --out"
    for folder, message in cases.items():
        with pytest.raises(InputError, match=f"^{re.escape(f'{folder}: {message}')}$"):
            go(folder)
    assert (other / "thesis.tex").read_text() == file.read_text() == "mine"


def test_a_folder_that_holds_another_run(tmp_path: Path) -> None:
    go(tmp_path / "run")
    message = f"{tmp_path / 'run'}: holds a run of recipe 'digits', this one is 'mine'; name another folder with --out"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        go(tmp_path / "run", "name=mine")


def test_what_the_user_did_wrong_is_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(context: Context) -> Any:
        raise InputError("data: too few")

    stages = (fake.STAGES[0], Stage(name="middle", run=refuse, result=fake.Told, needs=("first",), packages=()))
    monkeypatch.setattr(engine, "load_stages", lambda: stages)
    with pytest.raises(InputError, match=r"^data: too few$"):
        go(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["stages"]["middle"]["status"] == "failed"
    assert record["stages"]["middle"]["reason"] == "data: too few"
    assert record["passed"] is None


@pytest.mark.parametrize(("holds", "passed"), [(True, True), (False, False), (None, True)])
def test_a_failed_gate_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bool | None, passed: bool
) -> None:
    gate = {"name": "g", "holds": holds, "wanted": "1", "found": "2"}
    stage = Stage(name="only", run=lambda context: fake.Told(words="", gates=(gate,)), result=fake.Told, packages=())
    monkeypatch.setattr(engine, "load_stages", lambda: (stage,))
    record = run_recipe(RECIPE, tmp_path / "run", console=Console(quiet=True))
    assert record.passed is passed
    assert [each.name for each in record.gates] == ["g"]


def test_shipped_stages_come_in_an_order_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = load_stages()
    names = [stage.name for stage in stages]
    for stage in stages:
        assert all(names.index(need) < names.index(stage.name) for need in stage.needs)
        for section in stage.reads:
            RECIPE.section(section)
    assert [stage.name for stage in needed_for(["quantize"], stages)] == ["train", "quantize"]


def test_a_recipe_without_a_section_skips_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(
        name="only", run=fake.first, result=fake.Told, packages=(), wanted=lambda recipe: recipe.search is not None
    )
    monkeypatch.setattr(engine, "load_stages", lambda: (stage,))
    assert go(tmp_path / "run") == {"only": "skipped"}


def test_a_network_that_ends_the_process_fails_its_stage_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(context: Context) -> Any:
        sys.exit("no more")

    stages = (*fake.STAGES[:1], replace(fake.STAGES[1], run=ends), *fake.STAGES[2:])
    monkeypatch.setattr(engine, "load_stages", lambda: stages)
    message = (
        r"^stage 'middle': SystemExit\('no more'\): something that it called ends the process; raise an error instead\n"
        r"  at .*test_run\.py:\d+: sys\.exit\(\"no more\"\)$"
    )
    with pytest.raises(InputError, match=message):
        go(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["stages"]["middle"]["status"] == "failed" and record["stages"]["first"]["status"] == "done"
    assert not list((tmp_path / "run" / "stages").glob(".*"))
