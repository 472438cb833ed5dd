"""`bitwright parity` as a stranger meets it."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from jsonschema import Draft4Validator, Draft202012Validator, ValidationError

from bitwright.experiments import parity_document
from bitwright.experiments.run_folder import RESOLVED
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq

SARIF = Path(__file__).parents[1] / "hw_constraints" / "lint_report" / "sarif-2.1.0-rtm.5.json"
SCHEMA = Path(parity_document.__file__).with_name("parity.schema.json")
NETWORK = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x):
        x = self.relu(self.conv(x))
        return self.head(x.mean((2, 3)))


def build():
    torch.manual_seed(0)
    return Small()


def noisy():
    class Noisy(Small):
        def forward(self, x):
            return super().forward(x) + torch.rand(4)
    torch.manual_seed(0)
    return Noisy()


def remembering():
    class Remembering(Small):
        def __init__(self):
            super().__init__()
            self.register_buffer("memory", torch.zeros(1, 4))

        def forward(self, x):
            self.memory.mul_(0.5).add_(super().forward(x))
            return self.memory * 2

    torch.manual_seed(0)
    return Remembering()


def trained_otherwise():
    torch.manual_seed(1)
    return Small()
"""
SHAPE = ("--input", "1x3x12x12")


def _module(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("parity_small", folder / "small.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, its float file, its quantized file, and one with a wrong scale."""
    from bitwright.hw_constraints.target import load_target
    from bitwright.quant.capture import capture
    from bitwright.quant.ptq import quantize

    place = tmp_path_factory.mktemp("parity")
    (place / "small.py").write_text(NETWORK)
    module = _module(place)
    captured = capture(module.build().eval(), (torch.zeros(1, 3, 12, 12),))
    export_float(captured.graph, place / "float.onnx")
    draw = torch.Generator().manual_seed(0)
    batches = [(torch.randn(1, 3, 12, 12, generator=draw),) for _ in range(8)]
    export_onnx_qdq(quantize(captured, load_target("x86-vnni").scheme(), batches), place / "quantized.onnx")
    model = onnx.load(place / "float.onnx")
    weight = next(each for each in model.graph.initializer if each.name == "conv.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).swapaxes(2, 3), "conv.weight"))
    onnx.save(model, place / "broken.onnx")
    (place / "broken.provenance.json").write_text((place / "float.provenance.json").read_text())
    return place


@pytest.fixture
def bitwright(command_line: Callable[..., Any]) -> Callable[..., Any]:
    return lambda folder, *arguments: command_line(folder, "parity", *arguments, "--quiet")


def test_a_clean_chain_exits_with_0(bitwright: Callable[..., Any], folder: Path) -> None:
    done = bitwright(folder, "small:build", "quantized.onnx", *SHAPE, "--level", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agrees      eager → captured" in done.stdout
    assert "Every link computes the same network, on 1 input." in done.stdout


def test_a_break_is_named_with_its_layer_line_and_a_script_that_fails(
    bitwright: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    done = bitwright(folder, "small:build", "broken.onnx", *SHAPE, "--level", "disabled", "--out", tmp_path / "cases")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 layer breaks" in done.stdout and "small.py:12" in done.stdout
    assert "First break: batch norms folded → broken.onnx in ONNX Runtime" in done.stdout
    assert "at conv@0.0.0, on 1 input" in done.stdout and "what to do: the file computes something else" in done.stdout
    (script,) = (tmp_path / "cases").glob("*/reproduce.py")
    assert subprocess.run([sys.executable, script], capture_output=True).returncode == 1


def test_json_and_sarif(bitwright: Callable[..., Any], folder: Path) -> None:
    asked = ("small:build", "broken.onnx", *SHAPE, "--level", "disabled")
    found = json.loads(bitwright(folder, *asked, "--json").stdout)
    assert not found["agrees"] and found["first_break"]["layer"] == "conv@0.0.0"
    layers = {each["tensor"]: each for each in found["pairs"][-1]["layers"]}
    assert not layers["conv@0.0.0"]["agrees"] and layers["head@0.0.0"]["agrees"]
    assert layers["head@0.0.0"]["cumulative_sqnr_db"] < layers["head@0.0.0"]["own_sqnr_db"]
    published = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(published)
    Draft202012Validator(published).validate(found)
    with pytest.raises(ValidationError, match="'perhaps' is not of type 'boolean'"):
        Draft202012Validator(published).validate({**found, "agrees": "perhaps"})
    log = json.loads(bitwright(folder, *asked, "--format", "sarif").stdout)
    Draft4Validator(json.loads(SARIF.read_text())).validate(log)
    (result,) = log["runs"][0]["results"]
    assert result["ruleId"] == "parity"
    assert result["locations"][0]["physicalLocation"]["region"]["startLine"] == 12


def test_the_published_schema_is_generated_from_the_models() -> None:
    command = f"python -m bitwright.experiments.parity_document > {SCHEMA}"
    assert SCHEMA.read_text() == parity_document.schema(), f"after a deliberate change: {command}"


@pytest.mark.parametrize("wrong", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_tflite_file_is_a_side(bitwright: Callable[..., Any], folder: Path, tmp_path: Path, wrong: bool) -> None:
    """Beside the same network in another `.tflite` file: LiteRT's own kernels show every tensor of both."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'bitwright[litert]'")
    from bitwright.hw_constraints.target import load_target
    from bitwright.quant.capture import capture
    from bitwright.quant.export.exporter import export_as
    from bitwright.quant.ptq import quantize

    module = _module(folder).build().eval()
    images = [(torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed)),) for seed in range(4)]
    for name in ("sound", "other"):
        if wrong and name == "other":
            module.conv.weight.data.mul_(-1)
        quantized = quantize(capture(module, images[0]), load_target("arm-xnnpack").scheme(), images)
        export_as(quantized, tmp_path / f"{name}.tflite", "tflite_int8")
    np.save(tmp_path / "images.npy", np.concatenate([each.numpy() for (each,) in images]))
    done = bitwright(folder, tmp_path / "sound.tflite", tmp_path / "other.tflite", "--data", tmp_path / "images.npy")
    assert done.returncode == int(wrong), done.stdout + done.stderr
    assert "sound.tflite in LiteRT, kernels: builtin → sound.tflite in LiteRT, kernels: xnnpack" in done.stdout


@pytest.mark.slow
def test_openvino_is_a_link_too(bitwright: Callable[..., Any], folder: Path) -> None:
    found = json.loads(bitwright(folder, "small:build", "float.onnx", *SHAPE, "--openvino", "--json").stdout)
    pair = found["pairs"][-1]
    assert pair["to"] == "float.onnx in OpenVINO" and pair["agrees"] and pair["layers"]
    assert pair["from"] == "float.onnx in ONNX Runtime, optimisations: disabled"


@pytest.mark.parametrize("wrong", [False, True])
def test_a_dump_of_a_device_with_missing_tensors(
    bitwright: Callable[..., Any], folder: Path, tmp_path: Path, wrong: bool
) -> None:
    """The dump is made by ONNX Runtime from the file itself, without Bitwright."""
    image = np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)
    np.save(tmp_path / "images.npy", image)
    model = onnx.load(folder / ("broken.onnx" if wrong else "float.onnx"))
    names = ["conv@0.0.0", "head@0.0.0"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names[:1])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(names, {"x": image})
    np.savez(tmp_path / "device.npz", **dict(zip(("conv_0_0_0", "head@0.0.0"), values, strict=True)))
    done = bitwright(folder, "float.onnx", tmp_path / "device.npz", "--data", tmp_path / "images.npy")
    assert done.returncode == int(wrong), done.stdout + done.stderr
    assert "float.onnx in ONNX Runtime, optimisations: disabled → dump device.npz" in done.stdout
    assert ("at conv@0.0.0" in done.stdout) is wrong


def test_a_network_with_random_numbers_is_said_to_be_one(bitwright: Callable[..., Any], folder: Path) -> None:
    done = bitwright(folder, "small:noisy", "float.onnx", *SHAPE, "--level", "disabled")
    assert "not judged, since they differ from run to run" in done.stdout


@pytest.mark.slow
def test_other_weights_are_said_in_place_of_layers(bitwright: Callable[..., Any], folder: Path) -> None:
    """As a recipe, whose network has not been trained, beside the file of a training."""
    for file in ("float.onnx", "quantized.onnx"):
        done = bitwright(folder, "small:trained_otherwise", file, *SHAPE)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "The two sides are not one network: 2 of 2 weights differ: conv.weight, head.weight." in done.stdout
        assert "Give the run's folder in place of its recipe" in done.stdout and "breaks" not in done.stdout
    found = json.loads(bitwright(folder, "small:trained_otherwise", "float.onnx", *SHAPE, "--json").stdout)
    assert not found["agrees"] and found["unlike_weights"] == ["conv.weight", "head.weight"] and not found["pairs"]


def test_a_single_weight_that_differs_is_said_beside_its_layer(bitwright: Callable[..., Any], folder: Path) -> None:
    done = bitwright(folder, "float.onnx", "broken.onnx", "--level", "disabled")
    assert "1 of 2 weights differ: conv.weight between the two sides" in done.stdout
    assert "at conv@0.0.0" in done.stdout


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ("layers", "by halves, in "),
        ("passes", "broken.onnx breaks without any of them, too"),
        ("frames", "frames: nothing is remembered from one to the next"),
        ("opsets", "opsets: broken.onnx "),
        ("data", "data: conv@0.0.0 breaks on input 0: rows "),
    ],
)
def test_searches_by_halves(bitwright: Callable[..., Any], folder: Path, over: str, says: str) -> None:
    done = bitwright(folder, "small:build", "broken.onnx", *SHAPE, "--level", "disabled", "--bisect", over)
    assert done.returncode == 1 and says in done.stdout, done.stdout + done.stderr
    assert "at conv@0.0.0, on 1 input" in done.stdout


@pytest.mark.slow
def test_versions_of_the_runtime(bitwright: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    """Another Python is this one here, by a program of its own."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    asked = ("--level", "disabled", "--runtime", program)
    done = bitwright(folder, "small:build", "float.onnx", *SHAPE, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"float.onnx in ONNX Runtime {onnxruntime.__version__} of {program}" in done.stdout
    lone = bitwright(folder, "small:build", "float.onnx", *SHAPE, *asked, "--bisect", "versions")
    assert lone.returncode == 2 and "there is one version of ONNX Runtime only" in lone.stderr
    older = Path(__file__).parents[2] / ".peers" / "onnxruntime-1.23"
    if not older.is_dir():
        pytest.skip("no other version of ONNX Runtime is installed in .peers/onnxruntime-1.23")
    asked = ("--level", "disabled", "--runtime", older, "--bisect", "versions")
    for file, code, says in (
        ("float.onnx", 0, "versions: float.onnx computes the same in all that were asked (1.23."),
        ("broken.onnx", 1, "breaks, and so do the others: conv@0.0.0"),
    ):
        done = bitwright(folder, "small:build", file, *SHAPE, *asked)
        assert done.returncode == code and says in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_frames_of_a_network_with_memory(bitwright: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    """A file that keeps nothing is right on one input from the beginning, and says at the first frame what it lacks."""
    module = _module(folder)
    from bitwright.quant.capture import capture

    captured = capture(module.remembering().eval(), (torch.zeros(1, 3, 12, 12),))
    export_float(captured.graph, tmp_path / "memory.onnx")
    np.save(tmp_path / "frames.npy", np.random.default_rng(0).normal(size=(4, 3, 12, 12)).astype(np.float32))
    data = ("--data", tmp_path / "frames.npy", "--samples", 4, "--level", "disabled", "--bisect", "frames")
    done = bitwright(folder, "small:remembering", tmp_path / "memory.onnx", *SHAPE, *data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("agree on all 4, what they remember included") == 3
    provenance = tmp_path / "memory.provenance.json"
    provenance.write_text(json.dumps({**json.loads(provenance.read_text()), "state": []}))
    done = bitwright(folder, "small:remembering", tmp_path / "memory.onnx", *SHAPE, *data)
    assert "frame 1: " in done.stdout and "memory is not carried over" in done.stdout
    assert done.returncode == 1


def test_results_under_other_names_and_in_another_order_are_matched(
    bitwright: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    """By shape where each has its own; else the shapes are listed."""
    files = {}
    for name, results in (("a", ("head@0.0.0", "conv@0.0.0")), ("b", ("conv@0.0.0", "head@0.0.0"))):
        model = onnx.load(folder / "float.onnx")
        model.producer_name = "another"
        del model.graph.output[:]
        for place, result in enumerate(results):
            model.graph.node.add(op_type="Identity", input=[result], output=[f"{name}{place}"])
            shape = [1, 4] if result.startswith("head") else [1, 8, 12, 12]
            model.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}{place}", 1, shape))
        files[name] = tmp_path / f"{name}.onnx"
        onnx.save(model, files[name])
    done = bitwright(folder, files["a"], files["b"], "--level", "disabled")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("small:build", *SHAPE, "--samples", "0"), "--samples = 0; at least 1 is needed"),
        (("nowhere.onnx", "float.onnx"), "nowhere.onnx: no such file"),
        (("float.onnx", "small.py.npz"), "small.py.npz: cannot be read as a dump"),
        (("dump.npz", "float.onnx"), "dump.npz: is a dump, which can only be the second of the two"),
        (("float.onnx", "--level", "all"), "is one form of a network; name a second one"),
        (("float.onnx", "quantized.onnx", "--data", "x.csv"), "--data = 'x.csv'; expected a .npz or .npy file"),
        (("float.onnx", "quantized.onnx", "--data", "x.npy"), "--data = 'x.npy': cannot be read"),
        (("float.onnx", "."), ".: is a folder without a run in it"),
        (("small:build", "small:build", *SHAPE, "--bisect", "opsets"), "--bisect opsets: neither side is a file"),
    ],
)
def test_misuse_is_one_line_and_2(
    bitwright: Callable[..., Any], folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = bitwright(folder, *arguments)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_of_another_version_is_refused_with_the_key_that_it_has_and_this_one_does_not(
    bitwright: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RESOLVED).write_text("name: old\nfuture: 1\n")
    done = bitwright(tmp_path, "run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{Path('run') / RESOLVED}:2: future: no such key; allowed: name, " in done.stderr
