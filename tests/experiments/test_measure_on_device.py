"""`bitwright measure FILES --on ADDRESS`, with this machine as the device."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from bitwright.experiments import cli, measure_on_device
from bitwright.experiments.benchmarks import loopback_ssh
from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.results import MeasureResult
from bitwright.experiments.run import run_recipe
from bitwright.hw_constraints.measure import measurement_from_json
from bitwright.quant.errors import InputError


@pytest.fixture(autouse=True)
def own_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "bitwright" / "jobs.sqlite"


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"local:{tmp_path / 'device'}?python={sys.executable}&lock={tmp_path / 'device.lock'}"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return [product(tmp_path / f"{width}.onnx", width) for width in (16, 256)]


def product(path: Path, width: int) -> str:
    weight = numpy_helper.from_array(np.ones((width, width), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64, width))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return str(path)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build_app(), ["measure", *arguments])


def test_files_are_compared_on_the_device(files: list[str], address: str, own_journal: Path) -> None:
    done = invoke(*files, "--on", address, "--runtime", "onnxruntime", "--seconds", "1", "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)["onnxruntime"]
    fields = {key: record.pop(key) for key in ("job", "address", "conditions", "settings")}
    assert measurement_from_json(record).ratio(files[1], files[0]).verdict == "slower"
    assert fields["address"] == "local"
    assert fields["conditions"]["throttled"] == []
    assert own_journal.is_file()


def test_a_person_is_told_where_it_was(files: list[str], address: str) -> None:
    done = invoke(*files, "--on", address, "--runtime", "onnxruntime", "--seconds", "1")
    assert done.exit_code == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first == "onnxruntime"
    assert last.startswith("measured on local: ")


def test_the_devices_runtimes_that_read_the_file_are_taken(files: list[str], address: str) -> None:
    done = invoke(files[0], "--on", address, "--seconds", "0.5", "--json")
    found = list(json.loads(done.stdout))
    assert found[0] == "onnxruntime"
    assert set(found) <= {"onnxruntime", "openvino"}


@pytest.mark.parametrize(
    ("on", "more", "message"),
    [
        ("orin", (), "device 'orin': expected ssh://user@host:port/folder, adb://SERIAL/folder or local:/folder"),
        (
            "ADDRESS",
            ("--runtime", "tensorrt"),
            "local: trtexec is not in PATH; install it there: it comes with",
        ),
        ("ADDRESS", ("--threads", "0"), "--threads = 0; at least 1 is needed"),
        (
            "ssh://127.0.0.1:1/d",
            (),
            "ssh://127.0.0.1:1: ssh: connect to host 127.0.0.1 port 1: Connection refused",
        ),
    ],
)
def test_refusals_are_one_line(files: list[str], address: str, on: str, more: tuple[str, ...], message: str) -> None:
    if on.startswith("ssh") and loopback_ssh.missing():
        pytest.skip(loopback_ssh.missing() or "")
    done = invoke(files[0], "--on", address if on == "ADDRESS" else on, *more)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"bitwright: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_no_runtime_is_known_for(tmp_path: Path, address: str) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(b"?")
    done = invoke(str(path), "--on", address)
    assert (done.exit_code, done.stderr) == (
        2,
        "bitwright: local: no runtime is known for .pte files; name one with --runtime\n",
    )


def test_a_device_that_is_hot_says_so(files: list[str]) -> None:
    class Result:
        device = "ssh://orin"
        throttled = ("Processor at 7 of 10",)
        conditions = {  # noqa: RUF012
            "after": {"clocks_mhz": {"cpu0": 1800.0}, "temperatures_c": {"CPU": 97.4}},
            "waited_s": 120.2,
        }

        class measurement:
            class device:
                cpu_model, cores = "Cortex-A78AE", 8

    assert list(measure_on_device.remarks(Result())) == [  # type: ignore[arg-type]
        "measured on ssh://orin: Cortex-A78AE, 8 cores",
        "clocks: cpu0 1800 MHz",
        "temperatures: CPU 97 °C",
        "waited 120 s for it to cool",
        "throttled all the same: Processor at 7 of 10: these latencies are of a hot device",
    ]


def test_an_interrupted_call_goes_on_with_the_same_command(files: list[str], address: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bitwright.experiments.cli", "measure", files[0], "--on", address]
    command += ["--runtime", "onnxruntime", "--json"]
    started = subprocess.Popen([*command, "--seconds", "2"], stdout=subprocess.DEVNULL)
    log = tmp_path / "device" / "executions.log"
    while not log.exists():
        assert started.poll() is None
    started.kill()
    started.wait()
    again = subprocess.run([*command, "--seconds", "2"], capture_output=True, text=True, check=True)
    job = json.loads(again.stdout)["onnxruntime"]["job"]
    assert [line.split()[1:] for line in log.read_text().splitlines()] == [["start", job], ["done", job]]


NET = """
import torch
def build(): return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
def data(): return [torch.rand(4, 3, 8, 8) for _ in range(8)]
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    module = f"net_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(NET)
    text = f"name: n\ntarget: x86-vnni\nmodel: {{entry: {module}:build}}\ndata: {{entry: {module}:data}}\n"
    (tmp_path / "recipe.yaml").write_text(f"{text}measure: {{seconds: 1, rounds: 5}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "recipe.yaml"


def test_a_recipe_measures_on_its_device(recipe: str, address: str, tmp_path: Path) -> None:
    overrides = [f"measure.on={address}"]
    record = run_recipe(load_recipe(recipe, overrides), Path("run"), until="measure", console=Console(quiet=True))
    result = MeasureResult.model_validate(record.stages["measure"].result)
    assert result.device.endswith(" (local)")
    assert result.speeds[0].runtime.startswith("onnxruntime ")
    assert all(each.ratio.value > 0 for each in result.speeds)
    log = (tmp_path / "device" / "executions.log").read_text()
    assert log.count(" done ") == len(result.speeds)


def test_a_recipes_device_is_an_address(recipe: str) -> None:
    with pytest.raises(InputError, match=r"measure\.on = 'orin'; device 'orin': expected ssh://user@host:port/folder"):
        load_recipe(recipe, ["measure.on=orin"])
