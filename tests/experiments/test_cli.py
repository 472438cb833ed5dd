"""The command line as a person meets it: exit codes, one message for a mistake, JSON on request."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import typer.core
import yaml
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from bitwright.experiments import cli, commands
from bitwright.quant.errors import InputError

BITWRIGHT = [sys.executable, "-m", "bitwright.experiments.cli"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BITWRIGHT, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build_app(), list(arguments))


def test_help_names_every_command_the_usual_ones_first() -> None:
    text = invoke("--help").stdout
    places = [
        text.find(f" {name} ") for name in ("run", "validate", "ls", "targets", "lint", "prove", "measure", "report")
    ]
    assert -1 not in places and places == sorted(places)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digts"], "bitwright: unknown recipe 'digts'; there are: "),
        (["validate", "none.yaml"], "bitwright: none.yaml: no such file\n"),
        (["validate", "digits", "seed=x"], "bitwright: command line: seed = 'x'; expected a valid integer"),
        (["ls", "model"], "bitwright: unknown kind 'model'; there are: "),
        (["targets", "h20"], "bitwright: unknown target 'h20'; there are: "),
        (["lint", "pkg:build", "--target", "h200"], "bitwright: MODEL = 'pkg:build': there is no module 'pkg' in "),
        (["quantize", "pkg:build"], "bitwright: a network by its entry needs --target and --data"),
        (
            ["quantize", "pkg:build", "--target", "x86-vnni", "--data", "x.npy"],
            "bitwright: --data = 'x.npy'; a network or a recipe takes its data from package.module:function",
        ),
        (["prove", "none.onnx"], "bitwright: none.onnx: no such file"),
        (["prove", "none.onnx", "--runtime", "snpe"], "bitwright: unknown backend 'snpe'; there are: "),
        (["measure", "none.onnx"], "bitwright: none.onnx: no such file"),
        (["nonsense"], "Usage: "),
        (["run"], "Usage: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse_is_one_message_and_exit_code_2(
    tmp_path: Path, command_line: Callable[..., Any], arguments: list[str], message: str
) -> None:
    done = command_line(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.startswith(message), done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_how_a_report_is_made_as_text_and_as_json() -> None:
    text = invoke("prove", "net.onnx", "--how", "openvino").stdout
    assert text.startswith("benchmark_app -m net.onnx ")
    said = json.loads(invoke("prove", "net.onnx", "--how", "openvino", "--json").stdout)
    assert said == {"file": "net.onnx", "tool": "openvino", "lines": text.splitlines()}


def test_catalogues_as_json() -> None:
    kinds = json.loads(invoke("ls", "--json").stdout)
    assert {"recipes", "models", "datasets", "targets", "observers", "backends", "rules", "stages"} <= set(kinds)
    assert json.loads(invoke("ls", "models", "--json").stdout) == {"models": kinds["models"]}
    listed = json.loads(invoke("targets", "--json").stdout)
    assert [each["id"] for each in listed] == kinds["targets"]
    assert json.loads(invoke("targets", "h200", "--json").stdout)["artifact"]["format"] == "onnx_qdq"
    assert json.loads(invoke("validate", "digits", "train.epochs=3", "--json").stdout)["train"]["epochs"] == 3


def test_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitwright.experiments import doctor

    monkeypatch.setattr(doctor, "_NEEDED", ("numpy", "not_installed_here"))
    done = invoke("doctor", "--json")
    checks = {each["name"]: each for each in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert checks["package numpy"]["state"] == "ok"
    assert checks["package not_installed_here"]["state"] == "failed"
    assert "mend with: pip install" in checks["package not_installed_here"]["found"]


def test_doctor_says_which_runtimes_are_here_and_what_the_others_need() -> None:
    from bitwright.hw_constraints.backends import get_backend, list_backends

    checks = {each["name"]: each for each in json.loads(invoke("doctor", "--json").stdout)}
    for name in list_backends():
        check, reason = checks[f"runtime {name}"], get_backend(name).available()
        assert check["state"] == ("ok" if reason is None else "missing")
        if reason is None:
            assert check["found"] == get_backend(name).version()
        else:
            assert reason in check["found"] or f"pip install 'bitwright[{name}]'" in check["found"]


def test_measure_says_which_runtimes_read_which_files(tmp_path: Path) -> None:
    tflite, pt2 = str(tmp_path / "a.tflite"), str(tmp_path / "b.pt2")
    for path in (tflite, pt2):
        Path(path).write_bytes(b"")
    done = run("measure", tflite, "--runtime", "onnxruntime", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"bitwright: {tflite}: is a LiteRT model; onnxruntime reads an ONNX model or ")
    done = run("measure", tflite, pt2, cwd=tmp_path)
    message = "no runtime here reads pt2 and tflite files; measure them one kind at a time"
    assert (done.returncode, done.stderr) == (2, f"bitwright: {message}\n")


def command_that(raises: BaseException | None, code: int = 0) -> Any:
    def trial() -> int:
        if raises is not None:
            raise raises
        return code

    return trial


@pytest.mark.parametrize(
    ("raises", "code", "message"),
    [
        (None, 1, ""),
        (InputError("wrong"), 2, "bitwright: wrong\n"),
        (KeyboardInterrupt(), 130, "\nbitwright: stopped\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], raises: Any, code: int, message: str
) -> None:
    module = SimpleNamespace(COMMANDS=(command_that(raises, code), lambda: 0))
    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=lambda name: module))
    monkeypatch.setattr(cli.pkgutil, "iter_modules", lambda path: [SimpleNamespace(name="trial")])
    monkeypatch.setattr(cli.os, "dup2", lambda *_: 0)
    assert commands.__path__
    done = CliRunner().invoke(cli.build_app(), ["trial"])
    assert done.exit_code == code
    assert message in done.stderr


def test_ctrl_c_while_commands_are_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=stop))
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nbitwright: stopped\n"


LOSES_THE_INTERRUPT = """
import os, signal, sys, time
from types import SimpleNamespace
from bitwright.experiments import cli

class Loses:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

def trial() -> int:
    loses = Loses()
    del loses
    time.sleep(20)
    return 0

module = SimpleNamespace(COMMANDS=(trial, lambda: 0))
cli.importlib = SimpleNamespace(import_module=lambda name: module)
cli.pkgutil = SimpleNamespace(iter_modules=lambda path: [SimpleNamespace(name="trial")])
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["bitwright", "trial"]
cli.main()
"""


def test_ctrl_c_that_is_lost_where_nothing_can_be_raised_comes_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOSES_THE_INTERRUPT], capture_output=True, text=True, check=False, timeout=15
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nbitwright: stopped\n")


def test_ctrl_c_within_text_that_is_executed_ends_with_the_same_code(tmp_path: Path) -> None:
    act = "loses = Loses()\n    del loses\n    time.sleep(20)"
    assert act in LOSES_THE_INTERRUPT
    (tmp_path / "program.py").write_text(LOSES_THE_INTERRUPT.replace(act, 'exec("raise KeyboardInterrupt")'))
    command = [sys.executable, "-m", "program"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=15)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nbitwright: stopped\n")


def test_ctrl_c_while_arguments_are_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["bitwright", "ls"])
    monkeypatch.setattr(typer.core.TyperGroup, "make_context", stop)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nbitwright: stopped\n"


def qdq_file(folder: Path, *, activation: type = np.uint8) -> Path:
    """Conv with ReLU between Q/DQ pairs: 8-bit activations of the given type, int8 weights."""
    zero = numpy_helper.from_array(np.array(0, activation), "zero")
    parts = [
        zero,
        numpy_helper.from_array(np.array(0.02, np.float32), "scale"),
        numpy_helper.from_array(np.random.default_rng(0).integers(-60, 60, (16, 16, 3, 3)).astype(np.int8), "codes"),
        numpy_helper.from_array(np.array(0, np.int8), "weight_zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "weight_zero"], ["w"]),
        helper.make_node("Conv", ["xd", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "scale", "zero"], ["y"]),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("x", TensorProto.FLOAT, [1, 16, 32, 32])],
        [tensor("y", TensorProto.FLOAT, [1, 16, 32, 32])],
        parts,
    )
    path = folder / f"{activation.__name__}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_prove_says_what_runs_in_int8_and_fails_when_not_all_does(tmp_path: Path) -> None:
    good = invoke("prove", str(qdq_file(tmp_path)), "--runtime", "onnxruntime")
    assert good.exit_code == 0
    assert "100.0% of conv and linear MACs in int8" in good.stdout
    bad = invoke("prove", str(qdq_file(tmp_path, activation=np.int8)), "--runtime", "onnxruntime", "--json")
    assert bad.exit_code == 1
    (report,) = json.loads(bad.stdout)
    assert report["int8_mac_share"] == 0.0


@pytest.mark.parametrize("arguments", [("none.onnx",), ("files", "none.onnx"), ("--threads", "1", "none.onnx")])
def test_measure_means_files_where_no_other_command_is_named(arguments: tuple[str, ...]) -> None:
    done = invoke("measure", *arguments)
    assert (done.exit_code, done.stderr) == (2, "bitwright: none.onnx: no such file\n")


def test_help_of_a_group_lists_its_commands() -> None:
    text = invoke("measure", "--help").stdout
    assert "files" in text and "[required]" not in text


def test_measure_compares_files_with_the_first(tmp_path: Path) -> None:
    files = [str(qdq_file(tmp_path)), str(qdq_file(tmp_path, activation=np.int8))]
    done = invoke("measure", *files, "--runtime", "onnxruntime", "--seconds", "1")
    assert done.exit_code == 0, done.stdout
    assert done.stdout.splitlines()[0] == "onnxruntime" and "rounds" in done.stdout


NET = """
import torch
def build(): return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
def data(): return [torch.rand(4, 3, 8, 8) for _ in range(8)]
"""


def test_lint_and_quantize_take_a_network_by_its_entry(command_line: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    linted = command_line(tmp_path, "lint", "net:build", "--target", "x86-vnni", "--input", "1x3x8x8")
    assert (linted.returncode, linted.stdout) == (0, "no findings\n"), linted.stderr
    wrong = command_line(tmp_path, "lint", "net:build", "--target", "x86-vnni", "--input", "1,3")
    assert wrong.stderr.startswith(
        "bitwright: --input = '1,3'; expected a shape with an optional type, such as 1x3x224x224"
    )
    made = command_line(tmp_path, "quantize", "net:build", "--data", "net:data", "--target", "x86-vnni", "--quiet")
    assert made.returncode == 0, made.stderr
    artifact = tmp_path / made.stdout.splitlines()[-1]
    assert made.stderr == "" and onnx.load(artifact).graph.node


def test_ctrl_c_during_a_run_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = ["run", "digits", "train.epochs=500", "--out", "out"]
    process = subprocess.Popen(
        [*BITWRIGHT, *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "stages" / ".train.partial").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(
        "bitwright: stopped; finished stages are kept, go on with: bitwright run digits"
    )
    assert not (tmp_path / "out" / "stages" / ".train.partial").exists()


def test_a_missing_extra_ends_in_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitwright.experiments.load_recipe import load_recipe
    from bitwright.experiments.workbench import Workbench
    from bitwright.hw_constraints.backends import openvino

    monkeypatch.setattr(openvino.OpenVINOBackend, "_is_installed", lambda self: False)
    done = invoke("prove", "model.onnx", "--runtime", "openvino")
    assert done.exit_code == 2
    assert done.stderr == "bitwright: backend 'openvino' needs: pip install 'bitwright[openvino]'\n"
    recipe = load_recipe("digits", ["prove.runtimes=[openvino]"])
    with pytest.raises(InputError, match=r"^backend 'openvino' needs: pip install 'bitwright\[openvino\]'$"):
        Workbench(recipe).runtimes(recipe.prove.runtimes)


def test_validate_ends_with_a_word_of_success_that_is_still_yaml() -> None:
    done = CliRunner().invoke(cli.build_app(), ["validate", "digits"])
    assert done.exit_code == 0
    recipe = yaml.safe_load(done.stdout)
    assert recipe["name"] == "digits"
    assert done.stdout.splitlines()[-1] == f"# valid: digits for {recipe['target']}; nothing has run"
