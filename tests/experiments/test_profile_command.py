"""`bitwright profile` as a stranger meets it."""

import importlib.util
import json
import re
from pathlib import Path

import onnx
import pytest

from bitwright.experiments.profile_command import Asked, profile_model
from bitwright.experiments.tensorboard_profile import write_profile

PROOF = Path(__file__).parents[1] / "hw_constraints" / "proof"
REPORTS = [PROOF / "reports" / "tensorrt" / name for name in ("layers.json", "profile.json")]
FROM = [argument for report in REPORTS for argument in ("--from", str(report))]


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("proof_networks", PROOF / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path_factory.mktemp("profile") / "block.onnx"
    onnx.save(module.inverted_residual(), path)
    return path


@pytest.fixture
def bitwright(command_line, tmp_path):
    return lambda *arguments: command_line(tmp_path, "profile", *arguments)


def test_a_file_is_profiled_here_with_a_timeline(bitwright, block, tmp_path):
    done = bitwright(block, "--seconds", 0.1, "--runtime", "onnxruntime", "--trace", tmp_path / "trace.json")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^conv4/n \+ 1 +int8 +QLinearConv", done.stdout, re.MULTILINE)
    assert re.search(r"onnxruntime .* 1 thread: .* µs a run \(measured\)", done.stdout)
    assert "layers" in done.stdout and "outside kernels" in done.stdout
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert {each["ph"] for each in trace["traceEvents"]} == {"M", "X"}


def test_a_report_beside_the_model_of_its_target(bitwright, block):
    done = bitwright(block, *FROM, "--target", "tensorrt-orin", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["is_same_device"] and found["runtime"] == "tensorrt"
    total = found["layers_us"] + found["conversions_us"] + found["overhead_us"]
    assert total == pytest.approx(found["wall_us"]) == pytest.approx(45)
    assert found["layers"][0]["modelled_us"] > 0


def test_an_entry_is_profiled_in_float_by_its_modules_and_lines(bitwright, tmp_path):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))\n"
    )
    done = bitwright("mynet:build", "--input", "1x3x8x8", "--seconds", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    layers = json.loads(done.stdout)["layers"]
    assert [(layer["module"], layer["state"]) for layer in layers if layer["macs"]] == [("0", "float"), ("3", "float")]


@pytest.mark.slow
def test_an_entry_with_tokens_is_profiled_beside_itself(bitwright, tmp_path):
    """Integers cannot be made up: the example is the user's own, for the co-runner as well."""
    (tmp_path / "tokens.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 8), nn.Flatten(), nn.Linear(80, 4))\n"
    )
    done = bitwright("tokens:build", "--input", "1x10:int64", "--seconds", "0.1", "--beside", "same", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {layer["module"] for layer in found["layers"]} >= {"0", "1", "3"}
    assert found["tails"][0]["beside"]["runs"] >= 30


def test_bars_for_tensorboard(block, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = profile_model(str(block), Asked(reports=REPORTS, target="tensorrt-orin"))
    write_profile(found, tmp_path / "board")
    measured = EventAccumulator(str(tmp_path / "board" / "tensorrt" / "measured"), size_guidance={"images": 0})
    measured.Reload()
    bars = [event.value for event in measured.Scalars("profile/layer_us")]
    assert bars == pytest.approx([layer.us for layer in found.profile.layers])
    assert measured.Tags()["images"] == ["profile/layers"]
    assert (tmp_path / "board" / "tensorrt" / "modelled").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.onnx"], "none.onnx: no such file"),
        (["BLOCK", "--runtime", "onnx"], "unknown backend 'onnx'"),
        (
            ["BLOCK", "--runtime", "inductor"],
            "runtime 'inductor' reads pt2.*: layers are profiled where a runtime reads",
        ),
        (["BLOCK", "--threads", "0"], "--threads = 0; at least 1 is needed"),
        (["BLOCK", "--seconds", "nan"], "--seconds = nan; expected a number above 0"),
        (["BLOCK", "--beside", "noise"], "--beside = 'noise'; there are: same, memory"),
        (["BLOCK", "--batch", "0"], "--batch = 0; at least 1 is needed"),
        (["BLOCK", "--target", "x86-vnni"], "x86-vnni.* cost"),
        (["BLOCK", "--input", "1x3x8x8"], "an ONNX file has the shapes of its inputs"),
        (["BLOCK", *FROM, "--runtime", "onnxruntime"], "--runtime runs the file here, --from reads"),
        (["BLOCK", "--table", "none.table", "--runtime", "onnxruntime"], "none.table"),
        (["BLOCK", *FROM, "--table", "none.table"], "--table runs the file here, --from reads"),
        (["BLOCK", "--from", "BLOCK"], "an optimised model alone says no times"),
        (["BLOCK", "--trace", "/no/such/folder/t.json"], "there is no folder '/no/such/folder'"),
        (
            ["BLOCK", "--tensorboard", "BLOCK"],
            r"--tensorboard = '.*block\.onnx': '.*block\.onnx' is a file; name a folder",
        ),
        (["BLOCK", "--tensorboard", __file__ + "/a/b"], r"--tensorboard = '.*/a/b': '.*\.py' is a file; name a folder"),
        (["TFLITE"], r"net\.tflite: is a LiteRT model; layers are profiled of ONNX models only"),
    ],
)
def test_what_is_wrong_is_one_message(bitwright, block, tmp_path, arguments, message):
    files = {"BLOCK": str(block), "TFLITE": str(tmp_path / "net.tflite")}
    Path(files["TFLITE"]).touch()
    done = bitwright(*(files.get(each, each) for each in arguments))
    assert done.returncode == 2 and done.stdout == ""
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1
