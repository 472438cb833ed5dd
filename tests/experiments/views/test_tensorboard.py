import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bitwright.experiments import tensorboard_images as images
from bitwright.experiments.read_run import result_of
from bitwright.experiments.record import Figure, Record
from bitwright.experiments.results import (
    EvaluateResult,
    FindingRecord,
    MeasureResult,
    ProveResult,
    QuantizeResult,
    TrainResult,
    VerdictResult,
)
from bitwright.experiments.search_result import SearchResult
from bitwright.experiments.tensor_result import TensorQuality
from bitwright.experiments.tensorboard import finding_markdown, write_tensorboard


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0, "tensors": 0, "scalars": 0})
    events.Reload()
    return events


def value(events: EventAccumulator, tag: str) -> float:
    (only,) = events.Scalars(tag)
    return only.value


@pytest.fixture(scope="session")
def board(finished_run: Path) -> Path:
    return finished_run / "tensorboard"


@pytest.fixture(scope="session")
def full_board(full_record: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    (folder / "record.json").write_text(full_record.model_dump_json())
    return write_tensorboard(folder, folder / "tensorboard")


def activations_of(record: Record) -> list[TensorQuality]:
    quantized = result_of(record, "quantize", QuantizeResult)
    assert quantized is not None
    return [each for each in quantized.tensors if each.kind == "activation"]


def test_each_tensorboard_run_is_one_file(board: Path) -> None:
    folders = [path for path in board.rglob("*") if path.is_dir() and any(each.is_file() for each in path.iterdir())]
    names = {str(path.relative_to(board)) for path in folders}
    assert names >= {"train", "layers", "summary", "float/pytorch", "float/onnxruntime", "quantized/onnxruntime"}
    assert all(len(list(path.iterdir())) == 1 for path in folders)


def test_training_curves(board: Path, record: Record) -> None:
    trained = result_of(record, "train", TrainResult)
    assert trained is not None
    events = read(board / "train")
    assert [each.step for each in events.Scalars("train/loss")] == [1, 2]
    losses = [each.value for each in events.Scalars("train/loss")]
    assert losses == pytest.approx([each.loss for each in trained.epochs])


def test_quality_and_speed_lie_over_each_other_by_tag(board: Path, record: Record) -> None:
    evaluated = result_of(record, "evaluate", EvaluateResult)
    measured = result_of(record, "measure", MeasureResult)
    assert evaluated is not None and measured is not None
    first, row = evaluated.quantized[0], measured.speeds[0]
    of_float, of_quantized = read(board / "float/onnxruntime"), read(board / "quantized/onnxruntime")
    assert value(read(board / "float/pytorch"), "quality/top1") == pytest.approx(
        evaluated.reference.metrics["top1"].value
    )
    assert value(of_quantized, "quality/top1") == pytest.approx(first.metrics["top1"].value)
    assert value(of_quantized, "quality/output_sqnr_db") == pytest.approx(evaluated.sqnr.value)
    assert value(of_float, "latency/median_ms") == pytest.approx(row.float_latency.value)
    assert value(of_quantized, "latency/median_ms") == pytest.approx(row.quantized_latency.value)
    assert value(of_quantized, "latency/interquartile_range_ms") == pytest.approx(row.quantized_latency.spread)
    assert value(of_quantized, "latency/ratio_to_float_95_high") == pytest.approx(row.ratio.high)


def test_layers_are_steps(board: Path, record: Record) -> None:
    activations = activations_of(record)
    own = read(board / "layers").Scalars("layers/own_sqnr_db")
    assert [each.value for each in own] == pytest.approx([each.own_sqnr.value for each in activations])


def test_histograms_hold_the_counted_bins(board: Path, record: Record) -> None:
    events = read(board / "layers")
    tags = events.Tags()["histograms"]
    quantized = result_of(record, "quantize", QuantizeResult)
    assert quantized is not None
    assert len(tags) == sum(bool(each.counts) for each in quantized.tensors)
    spread = [each for each in activations_of(record) if each.counts]
    (histogram,) = (each.histogram_value for each in events.Histograms("activations/$x"))
    tensor = next(each for each in spread if each.tensor == "$x")
    assert histogram.num == sum(tensor.counts)
    assert (histogram.min, histogram.max) == pytest.approx((tensor.edges[0], tensor.edges[-1]))
    # TensorBoard leaves out empty bins at both ends.
    assert sum(histogram.bucket) == sum(tensor.counts)


def test_images_are_there_and_not_blank(board: Path, record: Record) -> None:
    summary, layers = read(board / "summary"), read(board / "layers")
    proved = result_of(record, "prove", ProveResult)
    assert proved is not None
    wanted = {"latency", "sqnr_per_layer", *(f"proof/{proof.runtime}" for proof in proved.proofs)}
    assert set(summary.Tags()["images"]) == wanted
    for kind in ("clip_lines/", "weight_clip_lines/"):
        assert 1 <= sum(tag.startswith(kind) for tag in layers.Tags()["images"]) <= 12
    for events in (summary, layers):
        for tag in events.Tags()["images"]:
            (shot,) = events.Images(tag)
            pixels = np.asarray(Image.open(io.BytesIO(shot.encoded_image_string)).convert("RGB"))
            assert pixels.shape[0] > 100 and pixels.shape[1] > 300
            assert pixels.std() > 10


def test_the_clip_lines_are_drawn_where_the_format_ends(record: Record) -> None:
    tensor = next(each for each in activations_of(record) if each.counts)
    span = tensor.edges[-1] - tensor.edges[0]
    inside = tensor.model_copy(update={"low": tensor.edges[0] + 0.25 * span, "high": tensor.edges[-1] - 0.25 * span})
    lines = [_red_columns(images.histogram_image(each)) for each in (tensor, inside)]
    # Two dashed lines, nearer to each other when the format covers half of the values.
    assert lines[1].max() - lines[1].min() < 0.7 * (lines[0].max() - lines[0].min())


def _red_columns(pixels: np.ndarray) -> np.ndarray:
    red = np.abs(pixels.astype(int) - np.array([0xB3, 0x26, 0x1E])).sum(2) < 24
    return np.flatnonzero(red.sum(0) > 0.3 * pixels.shape[0])


def test_text_holds_the_verdict_and_the_findings(board: Path, awkward_run: Path, record: Record) -> None:
    verdict = result_of(record, "verdict", VerdictResult)
    assert verdict is not None
    (text,) = read(board / "summary").Tensors("run/verdict/text_summary")
    markdown = text.tensor_proto.string_val[0].decode()
    assert verdict.headline in markdown
    assert "| gate | wanted | found | outcome |" in markdown
    (lint,) = read(awkward_run / "tensorboard" / "summary").Tensors("run/lint/text_summary")
    assert "silu" in lint.tensor_proto.string_val[0].decode()


def test_qat_curves_and_the_search_front(full_board: Path, search_result: SearchResult) -> None:
    curve = read(full_board / "qat").Scalars("qat/top1_by_epoch")
    assert [(each.step, each.value) for each in curve] == [(1, 80.0), (2, 85.0), (3, 88.0)]
    assert value(read(full_board / "qat/ptq"), "qat/top1") == 71.0
    assert value(read(full_board / "qat/qat"), "qat/top1") == 88.5
    search = read(full_board / "search")
    assert [each.value for each in search.Scalars("search/accuracy")] == [90.0, 95.0, 94.0, 90.0]
    assert search.Tags()["images"] == ["search/front", "search/parallel"]
    assert [each.step for each in search.Images("search/front")] == [0, 1, 2, 3, 4, 5, 6]  # one of these grows
    rows = {path.name for path in (full_board / "search").iterdir() if path.is_dir()}
    assert rows == {each.key for each in search_result.outcome.scored}
    assert value(read(full_board / "search/0002"), "hparam/accuracy") == 95.0


def test_a_search_comes_back_from_the_record_as_it_was(search_result: SearchResult) -> None:
    again = SearchResult.model_validate_json(search_result.model_dump_json())
    assert again.outcome == search_result.outcome
    assert [each.values["width"] for each in again.outcome.front] == [1.0, 0.5]


def test_writing_again_replaces(record: Record, tmp_path: Path) -> None:
    short = record.model_copy(update={"stages": {name: record.stages[name] for name in ("train", "lint")}})
    (tmp_path / "record.json").write_text(short.model_dump_json())
    final = tmp_path / "board"
    (final / "left over").mkdir(parents=True)
    for _ in range(2):
        write_tensorboard(tmp_path, final)
        assert {path.name for path in final.iterdir()} == {"summary", "train"}
        assert len([path for path in final.rglob("*") if path.is_file()]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"board", "record.json"}


def test_a_finding_marks_its_place() -> None:
    finding = FindingRecord(
        rule="dtype", severity="warning", node="n", module_path="a.b", found="f", allowed="g", suggestion="h",
        source="net.py:3", text="y = torch.topk(x)", focus="torch.topk",
    )  # fmt: skip
    lines = finding_markdown(finding).splitlines()
    assert lines[2:4] == ["    y = torch.topk(x)", "        ^^^^^^^^^^"]
    assert lines[-1] == "- instead: h"
    cost = Figure(value=12.345, unit="µs", origin="modelled")
    said = finding_markdown(finding.model_copy(update={"cost": cost, "calls": 3})).splitlines()
    assert said == [*lines, "- at stake: 12.3 µs in 3 calls (modelled)"]
