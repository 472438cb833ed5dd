"""The whole chain on real digits, small and short: what each stage hands to the next, and what runs again."""

import json
import shutil
from pathlib import Path

import jsonschema
import onnx
import pytest

from bitwright.experiments import record as records
from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.record import Record
from bitwright.experiments.results import (
    EvaluateResult,
    LintResult,
    MeasureResult,
    ProveResult,
    QuantizeResult,
    TrainResult,
    VerdictResult,
)
from bitwright.experiments.run import run_recipe
from bitwright.quant.errors import InputError

SMALL = (
    "data.size=32", "model.width=0.5", "model.depth=1", "train.epochs=4", "train.batch=32", "calibrate.samples=32",
    "measure.seconds=2", "evaluate.samples=200", "evaluate.gate.max_drop=5", "prove.gate.min_mac_share=1.0",
)  # fmt: skip


def go(folder: Path, *overrides: str) -> Record:
    return run_recipe(load_recipe("digits", [*SMALL, *overrides]), folder, console=Console(quiet=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("chain") / "run"
    return folder, go(folder)


def test_it_learns_and_int8_keeps_what_it_learned(run: tuple[Path, Record]) -> None:
    _, record = run
    trained = TrainResult.model_validate(record.stages["train"].result)
    assert trained.epochs[-1].loss < trained.epochs[0].loss
    assert trained.final.value > 60  # guessing gives 10
    evaluated = EvaluateResult.model_validate(record.stages["evaluate"].result)
    assert evaluated.reference.metrics["top1"].n == 200
    assert [each.engine.split()[0] for each in evaluated.quantized] == ["onnxruntime", "openvino"]
    assert abs(evaluated.drop.value) <= 5
    assert evaluated.agreement is not None and evaluated.agreement.value >= 93
    assert evaluated.sqnr.value >= 15


def test_nothing_stands_in_the_way_and_every_mac_is_proven_in_int8(run: tuple[Path, Record]) -> None:
    _, record = run
    assert LintResult.model_validate(record.stages["lint"].result).findings == ()
    proofs = ProveResult.model_validate(record.stages["prove"].result).proofs
    assert [(proof.runtime, proof.int8_macs.value) for proof in proofs] == [("onnxruntime", 100.0), ("openvino", 100.0)]


def test_the_artefact_is_a_checked_onnx_file_with_its_provenance(run: tuple[Path, Record]) -> None:
    folder, record = run
    result = QuantizeResult.model_validate(record.stages["quantize"].result)
    model = onnx.load(folder / "stages" / "quantize" / "quantized.onnx")
    onnx.checker.check_model(model)
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert (folder / "stages" / "quantize" / "quantized.provenance.json").is_file()
    assert result.quantized_bytes.value < result.float_bytes.value
    weights = [each for each in result.tensors if each.kind == "weight"]
    assert weights and all(each.sqnr.value > 25 for each in weights)
    activations = [each for each in result.tensors if each.kind == "activation"]
    assert activations and all(sum(each.counts) > 0 for each in activations)


def test_speed_comes_with_its_interval_and_its_rounds(run: tuple[Path, Record]) -> None:
    _, record = run
    for speed in MeasureResult.model_validate(record.stages["measure"].result).speeds:
        ratio = speed.ratio
        assert ratio.low is not None and ratio.high is not None and ratio.n is not None
        assert 0 < ratio.low <= ratio.value <= ratio.high and ratio.n >= 6
        assert speed.float_latency.unit == "ms" and speed.float_latency.origin == "measured"


def test_the_verdict_judges_every_gate(run: tuple[Path, Record]) -> None:
    _, record = run
    verdict = VerdictResult.model_validate(record.stages["verdict"].result)
    assert verdict.headline.startswith("digits on x86-")
    names = [gate.name for gate in verdict.gates]
    assert names == [
        "errors of the linter",
        "drop of top1",
        "agreement with float",
        "share of MACs in low precision, onnxruntime",
        "share of MACs in low precision, openvino",
    ]
    assert record.gates == verdict.gates
    assert record.passed is verdict.passed


def test_the_record_keeps_the_published_schema(run: tuple[Path, Record]) -> None:
    folder, record = run
    document = json.loads((folder / "record.json").read_text())
    published = json.loads(Path(records.__file__).with_name("record.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.validate(document, published)
    assert Record.model_validate(document) == record
    document["stages"]["train"]["status"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError, match="'perhaps' is not one of"):
        jsonschema.validate(document, published)


def test_the_published_schema_is_generated_from_the_models() -> None:
    published = Path(records.__file__).with_name("record.schema.json")
    command = f"python -m bitwright.experiments.record > {published}"
    assert published.read_text() == records.schema(), f"after a deliberate change: {command}"


def test_a_second_run_takes_everything_over_and_a_new_gate_is_judged_alone(run: tuple[Path, Record]) -> None:
    folder, first = run
    again = go(folder, "evaluate.gate.max_drop=-0")
    ran = [name for name, stage in again.stages.items() if stage.status == "done"]
    assert ran == ["verdict"]
    impossible = go(folder, "evaluate.gate.bound=100.1")
    assert impossible.passed is False
    assert {gate.name: gate.holds for gate in impossible.gates}["top1"] is False
    assert again.stages["train"].key == first.stages["train"].key


def test_another_observer_calibrates_again_but_does_not_train_again(run: tuple[Path, Record]) -> None:
    folder, _ = run
    again = go(folder, "calibrate.observer=percentile")
    status = {name: stage.status for name, stage in again.stages.items()}
    assert status["train"] == "reused"
    assert {status[name] for name in ("lint", "quantize", "evaluate", "prove", "measure", "verdict")} == {"done"}


def test_the_same_recipe_trains_the_same_network(run: tuple[Path, Record], tmp_path: Path) -> None:
    folder, _ = run
    run_recipe(load_recipe("digits", SMALL), tmp_path / "run", until="train", console=Console(quiet=True))
    weights = [each / "stages" / "train" / "weights.safetensors" for each in (folder, tmp_path / "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(
    ("target", "formats", "aside"),
    [
        ("h200", "float8_e4m3fn", "none of the target's runtimes (tensorrt) is here"),
        pytest.param("ethos-u85-1024", "int8", "none of the target's runtimes (", marks=pytest.mark.slow),
    ],
)
def test_a_target_that_is_not_here(
    run: tuple[Path, Record], tmp_path: Path, target: str, formats: str, aside: str
) -> None:
    """Its numbers are computed, its codes are counted; no speed is claimed, and a gate on speed cannot pass."""
    shutil.copytree(run[0], tmp_path / "run")
    record = go(tmp_path / "run", f"target={target}", "measure.gate.max_ratio=1.0")
    proved = ProveResult.model_validate(record.stages["prove"].result)
    assert proved.simulated and proved.proofs[0].low_precision_macs.value == 100
    assert proved.proofs[0].low_precision_macs.origin == "modelled"
    assert MeasureResult.model_validate(record.stages["measure"].result).speeds == ()
    quantized = QuantizeResult.model_validate(record.stages["quantize"].result)
    assert {each.format for each in quantized.tensors} == {formats}
    verdict = VerdictResult.model_validate(record.stages["verdict"].result)
    assert aside in verdict.text and "its speed was not measured here" in verdict.headline
    assert {gate.name: gate.holds for gate in verdict.gates}["quantized / float latency"] is False


def test_classes_that_do_not_fit_the_network(tmp_path: Path) -> None:
    message = (
        r"^the data have 10 classes, the model's output \[32, 7\] has 7; give the model as many outputs as there are "
    )
    with pytest.raises(InputError, match=message):
        go(tmp_path / "run", "model.classes=7")
