"""What the page and TensorBoard show of slices, of `quantize --auto`, and of tensors with what would help them."""

from pathlib import Path

import pytest

from bitwright.experiments.auto.result import AutoResult, Skipped, Try
from bitwright.experiments.read_run import result_of
from bitwright.experiments.record import Figure, Gate, Record, StageRecord
from bitwright.experiments.report import render_report
from bitwright.experiments.report.charts import sqnr_chart
from bitwright.experiments.results import EvaluateResult, QuantizeResult
from bitwright.experiments.slice_result import SliceResult
from bitwright.experiments.stage_store import replace_file
from bitwright.experiments.tensor_result import TensorQuality
from bitwright.experiments.tensorboard import write_tensorboard
from bitwright.experiments.tensorboard_tensors import offenders_markdown


def figure(value: float, unit: str = "%") -> Figure:
    return Figure(value=value, unit=unit, origin="measured", n=40, low=value - 1, high=value + 1, source="onnxruntime")


@pytest.fixture(scope="module")
def told(record: Record) -> Record:
    """The finished run with slices, advice, figures of the plainest way, and a search for its settings."""
    evaluated = result_of(record, "evaluate", EvaluateResult)
    quantized = result_of(record, "quantize", QuantizeResult)
    assert evaluated is not None and quantized is not None
    night = SliceResult(
        name="night <rain>", calibrated=0, reference=figure(91.25), quantized=figure(80.5), drop=figure(10.75),
        agreement=figure(88.5), sqnr=figure(14.5, "dB"), warning="slice 'night': none of its samples calibrated",
    )  # fmt: skip
    tensors = tuple(
        each.model_copy(update={"before": figure(11.0, "dB"), "own_before": figure(12.5, "dB"), "advice": "do <this>"})
        for each in quantized.tensors
    )
    tries = (
        Try(rung="nearest", what="plain", why="the cheapest", status="failed", evaluated=evaluated, seconds=3.5,
            gates=(Gate(name="SQNR of the results, dB", holds=False, wanted=">= 40", found="20"),), missing=(20.0,)),
        Try(rung="gptq", what="rounded", why="3 < 4", status="refused", reason="no layer"),
    )  # fmt: skip
    auto = AutoResult(
        tries=tries, skipped=(Skipped(rung="awq", reason="weights in int8 are fine enough"),), chosen=0, passed=False,
        minutes=5, spent_minutes=0.25, text="no try keeps the gate",
    )  # fmt: skip
    stages = {
        **record.stages,
        "evaluate": replaced(record, "evaluate", evaluated.model_copy(update={"slices": (night,)})),
        "quantize": replaced(record, "quantize", quantized.model_copy(update={"tensors": tensors})),
        "auto": StageRecord(status="done", result=auto.model_dump(mode="json")),
    }
    return record.model_copy(update={"stages": stages})


def replaced(record: Record, stage: str, result: EvaluateResult | QuantizeResult) -> StageRecord:
    return record.stages[stage].model_copy(update={"result": result.model_dump(mode="json")})


def test_the_page_holds_slices_advice_and_tries_and_escapes_what_comes_from_outside(told: Record) -> None:
    page = render_report(told)
    for text in (
        "night &lt;rain&gt;", "91.25 %", "80.50 %", "10.75 %", "⚠ slice &#39;night&#39;: none of its samples",
        "do &lt;this&gt;.", "plain 12.5 dB", "dashed: in the plainest way",
        "no try keeps the gate", "3 &lt; 4", "Left out: awq (weights in int8 are fine enough).", "0.2 of 5 minutes",
    ):  # fmt: skip
        assert text in page, text
    assert "<this>" not in page and page.count('class="chosen"') == 1


def test_a_run_without_them_has_none_of_these_sections(record: Record) -> None:
    page = render_report(record)
    assert not any(f'id="{section}"' in page for section in ("slices", "auto"))
    assert "dashed: in the" not in page


def test_weights_are_drawn_with_their_thresholds(record: Record) -> None:
    quantized = result_of(record, "quantize", QuantizeResult)
    assert quantized is not None
    weight = min((each for each in quantized.tensors if each.kind == "weight"), key=lambda each: each.sqnr.value)
    page = render_report(record)
    assert (
        f"Values of {weight.tensor} and where int8 ends" in page or f"Values of {weight.tensor} and where int7" in page
    )


def test_the_line_of_the_plainest_way_is_drawn_only_where_there_is_one(told: Record, record: Record) -> None:
    def chart(of: Record) -> str:
        quantized = result_of(of, "quantize", QuantizeResult)
        assert quantized is not None
        return str(sqnr_chart([each for each in quantized.tensors if each.kind == "activation"]))

    assert 'class="before"' in chart(told) and 'class="before"' not in chart(record)


def test_tensorboard_holds_them_too(told: Record, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(run: str) -> EventAccumulator:
        events = EventAccumulator(str(tmp_path / "board" / run))
        events.Reload()
        return events

    replace_file(tmp_path / "record.json", told.model_dump_json())
    write_tensorboard(tmp_path, tmp_path / "board")
    assert read("slices/quantized").Scalars("slices/night <rain>")[0].value == 80.5
    assert read("slices/drop").Scalars("slices/night <rain>_95_low")[0].value == 9.75
    assert "nearest" in read("auto").Tensors("auto/text_summary")[0].tensor_proto.string_val[0].decode()
    assert read("layers_plain").Scalars("layers/own_sqnr_db")[0].value == 12.5
    offenders = read("summary").Tensors("run/top_offenders/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "do <this>" in offenders
    weights = [tag for tag in read("layers").Tags()["histograms"] if tag.startswith("weights/")]
    assert weights


def test_the_worst_come_first(record: Record) -> None:
    quantized = result_of(record, "quantize", QuantizeResult)
    assert quantized is not None
    worst: TensorQuality = min(quantized.tensors, key=lambda each: each.own_sqnr.value)
    rows = offenders_markdown(quantized.tensors).splitlines()[2:]
    assert rows[0].startswith(f"| `{worst.tensor}` |") and len(rows) == min(12, len(quantized.tensors))
