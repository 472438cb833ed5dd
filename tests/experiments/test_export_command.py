"""`bitwright export`, `quantize --export` and the stage behind them: which files there are, and what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from bitwright.experiments.cli import build_app
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.exporter import export_as
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.ptq import quantize

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()

def data():
    torch.manual_seed(1)
    return [(torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))) for _ in range(3)]
"""


def command(*arguments: str | Path) -> tuple[int, list[str], str]:
    result = CliRunner().invoke(build_app(), [str(each) for each in arguments])
    return result.exit_code, result.stdout.splitlines(), result.stderr


@pytest.fixture(scope="module")
def qdq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Q/DQ file in the formats of Orin's DLA, which every exporter can say."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    quantized = quantize(capture(model, (x,)), load_target("orin-dla").scheme(), [(x,)])
    return export_as(quantized, tmp_path_factory.mktemp("qdq") / "int8.onnx", "onnx_qdq")[0]


def scales(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of what is coded; biases are int32 where the file says so."""
    found = {}
    for ref, known in graph_from_onnx(path).qparams.items():
        if known.spec.format.name != "int32":
            assert known.scale is not None and known.zero_point is not None
            found[str(ref)] = (known.scale, known.zero_point)
    return found


@pytest.mark.parametrize(
    ("arguments", "suffixes"),
    [
        (["--target", "hexagon-htp", "--set", "version=2.0.0"], [".onnx", ".encodings"]),
        (
            ["--target", "orin-dla", "--set", "dla_core=0"],
            [".onnx", ".calib.cache", ".precisions.json", ".trtexec.txt"],
        ),
        (["--format", "onnx_qdq"], [".onnx", ".provenance.json"]),
    ],
)
def test_a_file_becomes_another_with_the_same_scales(
    qdq: Path, arguments: list[str], suffixes: list[str], tmp_path: Path
) -> None:
    code, lines, errors = command("export", qdq, "--out", tmp_path / "net.onnx", *arguments)
    assert code == 0, errors
    assert lines == [str(tmp_path / f"net{suffix}") for suffix in suffixes]
    before, after = scales(qdq), scales(tmp_path / "net.onnx")
    assert before.keys() == after.keys()
    for name, (scale, zero_point) in before.items():
        np.testing.assert_allclose(after[name][0], scale, rtol=1e-6)
        np.testing.assert_array_equal(after[name][1], zero_point)


def test_encodings_become_codes_that_a_runtime_proves(qdq: Path, tmp_path: Path) -> None:
    command("export", qdq, "--out", tmp_path / "net.onnx", "--format", "encodings_json")
    code, lines, errors = command("prove", tmp_path / "net.onnx", "--runtime", "onnxruntime", "--json")
    assert code in (0, 1), errors
    (report,) = json.loads("\n".join(lines))
    assert {layer["file_format"] for layer in report["layers"] if layer["op"] in ("Conv", "Gemm")} == {"int8 x int8"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --format (see `bitwright ls exporters`) or --target"),
        (
            ["--format", "aimet"],
            "unknown exporter 'aimet'; there are: encodings_json, onnx_qdq, tensorrt_implicit, tflite_int8",
        ),
        (["--format", "encodings_json", "--set", "version"], "--set 'version' is no NAME=VALUE, such as version=0.6.1"),
        (
            ["--format", "encodings_json", "--set", "versoin=1"],
            "unknown setting of exporter 'encodings_json' 'versoin'",
        ),
    ],
)
def test_what_cannot_be_exported_is_one_line(qdq: Path, arguments: list[str], message: str, tmp_path: Path) -> None:
    code, _, errors = command("export", qdq, "--out", tmp_path / "net.onnx", *arguments)
    assert code == 2
    assert errors.startswith(f"bitwright: {message}") and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_target_of_a_compiler_of_tflite_files_gets_one(qdq: Path, tmp_path: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    code, lines, _ = command("export", qdq, "--out", tmp_path / "net.tflite", "--target", "ethos-u85-1024")
    assert code == 0 and [Path(line).name for line in lines] == ["net.tflite", "net.tflite.provenance.json"]
    litert = interpreter.Interpreter(model_path=str(tmp_path / "net.tflite"))
    known = {each["name"]: each["quantization"] for each in litert.get_tensor_details()}
    values = json.loads((tmp_path / "net.tflite.provenance.json").read_text())["values"]
    expected = scales(qdq)
    assert len(values) == 4
    command("export", qdq, "--out", tmp_path / "net.onnx")  # beside it, and neither tells of the other's values
    assert json.loads((tmp_path / "net.tflite.provenance.json").read_text())["values"] == values
    for name, ref in values.items():
        assert ref not in expected or known[name] == (expected[ref][0], expected[ref][1])
    code, _, errors = command("export", qdq, "--out", tmp_path / "net.onnx", "--target", "ethos-u85-1024")
    assert code == 2 and "net.onnx'; int8 TensorFlow Lite is written as NAME.tflite" in errors


def test_a_file_is_not_written_over_itself_and_one_in_float_has_nothing_to_export(qdq: Path, tmp_path: Path) -> None:
    before = qdq.read_bytes()
    code, _, errors = command("export", qdq, "--out", qdq, "--format", "encodings_json")
    assert (code, qdq.read_bytes()) == (2, before) and "is what is read; write to another file" in errors
    command("export", qdq, "--out", tmp_path / "net.onnx", "--format", "encodings_json")
    (tmp_path / "net.encodings").unlink()
    code, _, errors = command("export", tmp_path / "net.onnx", "--out", tmp_path / "b.onnx", "--format", "onnx_qdq")
    assert code == 2 and "has no QuantizeLinear; it is a network in float" in errors


def test_quantize_writes_what_the_targets_toolchain_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "export_net.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("export_net", None)
    common = ["export_net:build", "--data", "export_net:data", "--quiet", "--out", tmp_path / "run"]
    code, lines, errors = command("quantize", *common, "--target", "hexagon-htp")
    assert code == 0, errors
    assert [Path(line).name for line in lines[1:]] == ["quantized.onnx", "network.onnx", "network.encodings"]
    written = [tmp_path / line for line in lines[1:]]
    before, after = scales(written[0]), scales(written[1])
    assert before.keys() == after.keys()
    assert all(np.array_equal(after[name][0], scale) for name, (scale, _) in before.items())
    assert not any("Quantize" in node.op_type for node in onnx.load(written[1]).graph.node)

    # The DLA's format has no zero points: the default is a note, what was asked for an error.
    code, _, errors = command("quantize", *common, "--target", "hexagon-htp", "--export", "tensorrt_implicit")
    assert code == 2
    assert "format uint8; TensorRT's implicit quantization has int8 alone" in errors
