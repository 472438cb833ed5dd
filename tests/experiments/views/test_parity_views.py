"""Parity in the report and in TensorBoard: the break is marked, its values lie side by side, pictures are drawn."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest

from bitwright.experiments.parity_pictures import drawing
from bitwright.experiments.parity_result import ParityBreak, ParityLayer, ParityPair, ParityPicture, ParityResult
from bitwright.experiments.record import Record, StageRecord
from bitwright.experiments.report.page import render_report
from bitwright.experiments.tensorboard_parity import write_parity

IMAGE = np.full((32, 48, 3), 90, np.uint8)


def masks() -> tuple[np.ndarray, np.ndarray]:
    first = np.zeros((1, 3, 16, 24), np.float32)
    first[:, 1, 4:12, 6:18] = 1.0
    second = first.copy()
    second[:, 2, 4:8, 6:10] = 2.0
    return first, second


@pytest.fixture
def found() -> ParityResult:
    drawn = drawing("result['logits']", IMAGE, *masks())
    assert drawn is not None
    stream = io.BytesIO()
    drawn[1].save(stream, "PNG")
    png = base64.b64encode(stream.getvalue()).decode()
    layers = [ParityLayer(tensor=f"layer<{i}>", op="conv2d", severity=s, cumulative_db=40.0) for i, s in
              enumerate((0.0, 0.2, 1e9, 0.9))]  # fmt: skip
    return ParityResult(
        pairs=(
            ParityPair(made_from="eager", link="captured", layers=0, agrees=True),
            ParityPair(made_from="captured", link="file", layers=4, agrees=False, judged=tuple(layers)),
            ParityPair(made_from="file", link="gone", layers=0, agrees=False, problem="signal SIGSEGV"),
        ),
        breaks=(
            ParityBreak(
                made_from="captured", link="file", tensor="layer<2>", op="conv2d", source="net.py:7",
                error="3 of 8 codes differ", allowed="0 codes", edges=(0.0, 1.0, 2.0), expected_counts=(5, 3),
                found_counts=(2, 6),
            ),
        ),
        unsteady=(),
        inputs=2,
        text="First break: captured → file at layer<2>, on 2 inputs.",
        pictures=(ParityPicture(result="result['logits']", link="file", words=drawn[0], png=png),),
    )  # fmt: skip


def test_the_report_marks_the_break_and_escapes_names(found: ParityResult, record: Record) -> None:
    stage = StageRecord(status="done", result=found.model_dump(mode="json"))
    page = render_report(record.model_copy(update={"stages": {**record.stages, "parity": stage}}))
    assert "captured → file" in page and "✗ breaks" in page and "signal SIGSEGV" in page
    assert page.count('class="broken"') == 1 + 2  # the layer's bar, and two bins of what it gives
    assert 'class="break"' in page and "layer&lt;2&gt;" in page and "layer<2>" not in page
    assert "3 of 8 codes differ" in page and "data:image/png;base64," in page


def test_a_run_without_parity_has_no_section(record: Record) -> None:
    plain = record.model_copy(update={"stages": {k: v for k, v in record.stages.items() if k != "parity"}})
    assert 'id="parity"' not in render_report(plain)


def test_tensorboard_gets_scalars_and_pictures(found: ParityResult, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        write_parity(found, writer)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    (tag,) = events.Tags()["scalars"]
    assert [each.value for each in events.Scalars(tag)] == pytest.approx([0.0, 0.2, 1e9, 0.9])
    kinds = {name.split("/")[0] for name in events.Tags()["images"]}
    assert kinds == {"parity", "parity_breaks", "parity_results"}


def test_masks_are_drawn_with_what_differs() -> None:
    first, second = masks()
    drawn = drawing("result['logits']", IMAGE, first, second)
    assert drawn is not None and drawn[0] == "16 of 384 pixels of another class"
    same = drawing("result['logits']", IMAGE, first, first)
    assert same is not None and same[0].startswith("0 of")
    assert np.array(same[1]).shape == np.array(drawn[1]).shape
    panel = np.array(same[1])[:, -256:]
    assert (panel == 90).all(), "nothing differs, so the last panel is the image alone"


@pytest.mark.parametrize("scale", [(1.0, 1.0), (48.0, 32.0)])
def test_boxes_are_drawn_in_pixels_or_in_shares_of_the_image(scale: tuple[float, float]) -> None:
    box = np.array([[[0.25, 0.25, 0.75, 0.75]]], np.float32) * np.array([*scale, *scale], np.float32)
    drawn = drawing("result['boxes']", IMAGE, box, box)
    assert drawn is not None and drawn[0] == "boxes off by up to 0"
    coloured = np.argwhere((np.array(drawn[1])[:, :256] != 90).any(-1))
    height, width = 171, 256
    assert coloured.min(0) == pytest.approx((height / 4, width / 4), abs=2)
    assert coloured.max(0) == pytest.approx((3 * height / 4, 3 * width / 4), abs=2)


def test_what_is_neither_is_not_drawn() -> None:
    assert drawing("result['logits']", IMAGE, np.zeros((1, 10)), np.zeros((1, 10))) is None
