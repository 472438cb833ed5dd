"""The command, and the stage of a run, on a machine by formula."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from made_up_machine import SCHEME, network_us, networks, splits, table

from bitwright.experiments.autotune_subject import prediction
from bitwright.experiments.cli import build_app
from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.results import PredictResult
from bitwright.experiments.run import run_recipe
from bitwright.hw_constraints.table import KernelTable, TableKey
from bitwright.hw_constraints.table.reference import REFERENCE
from bitwright.quant.errors import InputError

NETWORK = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    table(folder / "made-up.table")
    network = networks(NETWORK + 1, seed=7)[NETWORK]
    (folder / "float.onnx").write_bytes(network.float_file())
    (folder / "int8.onnx").write_bytes(network.int8_file(SCHEME))
    return folder


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        build_app()(["predict", *arguments])
    return int(ended.value.code or 0)


def _truth(number_format: str) -> float:
    name = networks(NETWORK + 1, seed=7)[NETWORK].name
    return network_us([placed.kernel for placed in splits(NETWORK + 1, seed=7)[f"{name}/{number_format}"].kernels])


def test_a_float_file_is_predicted_with_what_int8_would_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(folder / "float.onnx"), "--table", str(folder / "made-up.table"), "--target", "x86-vnni"]
    assert _run(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["us"] == pytest.approx(_truth("float32"), rel=0.1)
    assert found["int8"]["int8_us"] == pytest.approx(_truth("int8"), rel=0.1)
    assert found["origin"] == "predicted" and found["where"] == "onnxruntime 1.0, 1 thread, Formula One"
    assert _run(*arguments) == 0
    said = capsys.readouterr().out
    assert "float.onnx: " in said and "at 90 % on onnxruntime 1.0" in said and "int8" in said
    assert f"\nfor one call on {'x'.join(map(str, found['inputs'][0]))}\n" in said
    assert f"\nthe 10 costliest of {len(found['layers'])} kernels (all in --json)\n" in said
    assert "the table is not of this machine, nor is the latency: device.cpu_model Formula One, here " in said


def test_a_file_in_int8_is_predicted_as_it_stands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(str(folder / "int8.onnx"), "--table", str(folder / "made-up.table"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["us"] == pytest.approx(_truth("int8"), rel=0.1)
    assert found["int8"] is None and found["no_int8"] == "the file is in int8 already"


def test_what_cannot_be_used_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "no.table").write_text("no table")
    (folder / "no.onnx").write_text("no model")
    with KernelTable.writing(folder / "empty.table", TableKey.here("onnxruntime", 1), REFERENCE.to_json()) as empty:
        pass
    made_up, model = str(folder / "made-up.table"), str(folder / "float.onnx")
    for arguments, name in (
        ([model, "--table", str(folder / "missing.table")], "missing.table"),
        ([model, "--table", str(folder / "no.table")], "no.table"),
        ([str(folder / "no.onnx"), "--table", made_up], "no.onnx"),
        ([model, "--table", made_up, "--target", "x68-vnni"], "unknown target 'x68-vnni'; there are: "),
        (
            [model, "--table", made_up, "--target", "edge-tpu"],
            "--target = 'edge-tpu'; 'edge-tpu' runs in edgetpu-compiler, not in 'onnxruntime'",
        ),
        ([str(folder), "--table", made_up], f"{folder}: is a folder; give the .onnx file in it"),
        ([str(folder / "no.onnx"), "--table", str(empty.path)], f"{folder / 'no.onnx'}: not an ONNX model"),
        ([model, "--table", str(empty.path)], f"{empty.path}: has no measured kernel; fill it first: bitwright"),
        ([str(folder / "missing.onnx"), "--table", made_up], "missing.onnx"),
    ):
        assert _run(*arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("bitwright: ") and name in said and said.count("\n") == 1


SMALL = ("data.size=16", "model.width=0.25", "model.depth=1", "calibrate.samples=8", "train=null")


def test_a_run_says_what_to_expect_before_it_quantizes(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    asked = [*SMALL, f"predict.tables=[{folder / 'made-up.table'}]"]
    record = run_recipe(load_recipe("digits", asked), tmp_path / "run", until="predict", console=Console(quiet=True))
    assert "quantize" not in record.stages
    (gain,) = PredictResult.model_validate(record.stages["predict"].result).gains
    assert gain.expectation in ("faster", "slower", "unsure") and gain.text
    assert gain.float_latency is not None and gain.float_latency.value > 0


def test_a_table_that_is_no_file_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError) as refused:
        load_recipe("digits", ["predict.tables=[none.table]"])
    said = "command line: predict.tables[0] = 'none.table'; there is no such file; measure one first: "
    assert str(refused.value) == f"{said}bitwright measure kernels --out none.table"


def test_without_a_table_a_run_predicts_nothing(tmp_path: Path) -> None:
    record = run_recipe(
        load_recipe("digits", list(SMALL)), tmp_path / "run", until="predict", console=Console(quiet=True)
    )
    assert record.stages["predict"].status == "skipped"


def test_tuning_orders_its_tries_by_the_same_prediction(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "made-up.table"
    monkeypatch.setattr(TableKey, "here", lambda runtime, threads: KernelTable.load(path).key)
    microseconds = prediction(path, "onnxruntime", 1)
    assert microseconds(folder / "float.onnx") == pytest.approx(_truth("float32"), rel=0.1)
    assert microseconds(folder / "int8.onnx") == pytest.approx(_truth("int8"), rel=0.1)
