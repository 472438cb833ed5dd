"""Parity in the report and in TensorBoard: the break is marked, its values lie side by side, pictures are drawn."""

import base64
import io
import math
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chromium import Chromium, executable

from bitwright.experiments.parity_pictures import drawing
from bitwright.experiments.parity_result import ParityBreak, ParityLayer, ParityPair, ParityPicture, ParityResult
from bitwright.experiments.record import Record, StageRecord
from bitwright.experiments.report.page import render_report
from bitwright.experiments.report.parity_chart import parity_chart, values_chart
from bitwright.experiments.tensorboard_parity import pair_image, values_image, write_parity

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


def pair(*severities: float) -> ParityPair:
    judged = tuple(ParityLayer(tensor=f"layer {place}", op="conv2d", severity=each, cumulative_db=40.0)
                   for place, each in enumerate(severities))  # fmt: skip
    return ParityPair(made_from="captured", link="file", layers=len(judged), agrees=False, judged=judged)


def shapes(markup: str, tag: str, kind: str = "") -> list[ET.Element]:
    return [each for each in ET.fromstring(markup).iter(tag) if kind in ("", each.get("class"))]


def span(rect: ET.Element) -> tuple[float, float]:
    left = float(rect.get("x") or 0)
    return left, left + float(rect.get("width") or 0)


@pytest.mark.parametrize("broken", [(0, 5), (3,), (3, 4, 9), (9,)])
def test_the_mark_stands_over_the_first_bar_that_breaks_and_names_it(broken: tuple[int, ...]) -> None:
    drawn = str(parity_chart(pair(*(7.0 if each in broken else 0.3 for each in range(10))), name="p"))
    bars = shapes(drawn, "rect")
    red = [place for place, bar in enumerate(bars) if bar.get("class") == "broken"]
    assert len(bars) == 10 and red == list(broken)
    (mark,) = shapes(drawn, "path", "break")
    points = [tuple(map(float, each)) for each in re.findall(r"([\d.]+) ([\d.]+)", mark.get("d") or "")]
    tip = max(points, key=lambda point: point[1])
    left, right = span(bars[broken[0]])
    assert left < tip[0] < right and tip[1] <= min(float(bar.get("y") or 0) for bar in bars)
    named, allowed = (next(each for each in shapes(drawn, "text") if each.text == text)
                      for text in (f"layer {broken[0]}", "allowed"))  # fmt: skip
    assert abs(float(named.get("x") or 0) - tip[0]) < 15
    assert float(allowed.get("x") or 0) > span(bars[-1])[1]  # beside the bars, not on them


def test_nothing_is_marked_where_nothing_breaks() -> None:
    drawn = str(parity_chart(pair(0.0, 0.9, 1.0), name="p"))
    assert not shapes(drawn, "path", "break") and not shapes(drawn, "rect", "broken")


def test_bars_are_as_high_as_the_logarithm_of_the_error() -> None:
    """Of six decades: 1 stands at half the height, on the line of what is allowed, and nothing goes beyond the end."""
    drawn = str(parity_chart(pair(1e-3, 1.0, 10.0, 1e9), name="p"))
    heights = [float(bar.get("height") or 0) for bar in shapes(drawn, "rect")]
    assert heights == pytest.approx([0.0, 80.0, 80.0 * 4 / 3, 160.0], abs=0.1)
    (line,) = shapes(drawn, "line", "clip")
    assert float(line.get("y1") or 0) == pytest.approx(float(shapes(drawn, "rect")[1].get("y") or 0), abs=0.1)


def test_expected_values_stand_above_the_axis_and_found_ones_hang_below(found: ParityResult) -> None:
    drawn = str(values_chart(found.breaks[0], name="v"))
    (axis,) = shapes(drawn, "line", "axis")
    middle = float(axis.get("y1") or 0)
    for kind, counts, is_above in (("float", (5, 3), True), ("broken", (2, 6), False)):
        bars = shapes(drawn, "rect", kind)
        tops = [float(bar.get("y") or 0) for bar in bars]
        heights = [float(bar.get("height") or 0) for bar in bars]
        assert [top + height if is_above else top for top, height in zip(tops, heights, strict=True)] == [middle] * 2
        assert heights[0] / heights[1] == pytest.approx(math.log(1 + counts[0]) / math.log(1 + counts[1]), rel=1e-2)
        assert [bar.findtext("{*}title") or bar.findtext("title") for bar in bars] == [
            f"{count} values from {left} to {left + 1}" for left, count in enumerate(counts)
        ]


RED = (0xB3, 0x26, 0x1E)


def columns_of(pixels: Any, colour: tuple[int, int, int], rows: slice) -> list[tuple[int, int]]:
    """Runs of columns in which a colour stands in these rows."""
    hit = np.flatnonzero((np.abs(pixels[rows].astype(int) - colour).max(-1) < 12).any(0))
    runs = np.split(hit, np.flatnonzero(np.diff(hit) > 1) + 1) if len(hit) else []
    return [(int(run[0]), int(run[-1])) for run in runs]


@pytest.mark.parametrize("broken", [(0, 6), (2,), (9,)])
def test_tensorboards_mark_stands_over_the_first_bar_that_breaks(broken: tuple[int, ...]) -> None:
    pixels = pair_image(pair(*(1e6 if each in broken else 0.3 for each in range(10))))
    full = (np.abs(pixels.astype(int) - RED).max(-1) < 12).sum(1)
    top = int(np.flatnonzero(full >= 20 * len(broken))[0])  # bars end at the upper edge of the axes
    bars = [run for run in columns_of(pixels, RED, slice(top + 4, top + 8)) if run[1] - run[0] > 5]
    assert len(bars) == len(broken)
    mark = max(columns_of(pixels, RED, slice(0, top - 1)), key=lambda run: run[1] - run[0])
    assert bars[0][0] < sum(mark) / 2 < bars[0][1]
    order = [(left + right) / 2 for left, right in bars]
    steps = [(here - order[0]) / (place - broken[0]) for here, place in zip(order[1:], broken[1:], strict=True)]
    assert all(step > 20 for step in steps)  # so far apart as the layers are


def test_tensorboards_histograms_stand_above_and_below(found: ParityResult) -> None:
    pixels = values_image(found.breaks[0]).astype(int)
    grey, red = (np.abs(pixels - colour).max(-1) < 8 for colour in ((0x8A, 0x96, 0xA3), RED))
    in_axes = slice(0, int(pixels.shape[1] * 0.7))  # left of the legend
    assert np.flatnonzero(grey[:, in_axes].sum(1) > 20).max() < np.flatnonzero(red[:, in_axes].sum(1) > 20).min()


def test_only_what_differs_is_red_and_classes_have_their_own_colours() -> None:
    drawn = drawing("result['logits']", IMAGE, *masks())
    assert drawn is not None
    panels = [np.array(drawn[1])[:, left : left + 256].astype(int) for left in (0, 264, 528)]
    rows, columns = (slice(round(4 * 171 / 16) + 2, round(8 * 171 / 16) - 2),
                     slice(round(6 * 256 / 24) + 2, round(10 * 256 / 24) - 2))  # fmt: skip
    red = np.zeros(panels[2].shape[:2], bool)
    red[rows, columns] = True
    assert (panels[2][red][:, 0] > 150).all() and (panels[2][red][:, 1:] < 90).all()
    far = np.ones_like(red)
    far[rows.start - 4 : rows.stop + 4, columns.start - 4 : columns.stop + 4] = False
    assert (panels[2][far] == 90).all()
    same = panels[0][rows.stop + 6, columns.stop + 20], panels[1][rows.stop + 6, columns.stop + 20]
    np.testing.assert_array_equal(*same)  # class 1 in both
    assert np.abs(panels[0][red] - panels[1][red]).max() > 60  # class 1 in one, class 2 in the other


def test_classes_as_whole_numbers_are_a_mask_where_they_have_the_images_proportions() -> None:
    first, second = (each.argmax(1) for each in masks())
    drawn = drawing("result['pred']", IMAGE, first, second)
    assert drawn is not None and drawn[0] == "16 of 384 pixels of another class"
    assert drawing("result['pred']", IMAGE, first[:, :, :8], second[:, :, :8]) is None


CORNERS = np.array([[2, 2, 12, 12], [20, 4, 40, 20], [4, 20, 14, 30]], np.float32)


def outlines(picture: Any, panel: int) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of what is drawn in each colour; white and the image left out."""
    pixels = np.array(picture)[:, panel * 264 : panel * 264 + 256].reshape(-1, 256, 3)
    found = []
    for colour in np.unique(pixels.reshape(-1, 3), axis=0):
        if tuple(colour) not in ((90, 90, 90), (255, 255, 255)):
            rows, columns = np.nonzero((pixels == colour).all(-1))
            found.append((int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())))
    return sorted(found)


def test_the_same_object_has_the_same_colour_whatever_its_row() -> None:
    moved = CORNERS[[2, 0, 1]] + 0.5
    drawn = drawing("result['boxes']", IMAGE, CORNERS, moved)
    assert drawn is not None and drawn[0] == "boxes off by up to 0.5"
    left, right = (np.array(drawn[1])[:, start : start + 256] for start in (0, 264))
    for x1, y1, _, y2 in CORNERS * 256 / 48:
        row = round((y1 + y2) / 2)
        assert (left[row, round(x1)] == right[row, round(x1 + 0.5 * 256 / 48)]).all()


def test_an_object_of_one_side_is_counted_and_red() -> None:
    elsewhere = CORNERS[2:] + np.array([25, -10, 25, -10], np.float32)
    drawn = drawing("result['boxes']", IMAGE, CORNERS, np.concatenate([CORNERS[:2], elsewhere]))
    assert drawn is not None and drawn[0] == "boxes off by up to 0, 1 missed, 1 extra"
    pixels = np.array(drawn[1])
    red = (pixels == (214, 39, 40)).all(-1)
    assert red[:, :256].any() and red[:, 264:].any()


def test_centres_with_sizes_are_drawn_where_the_corners_are() -> None:
    """Some width is smaller than its centre's place, so they can be no corners."""
    middles, sizes = (CORNERS[:, :2] + CORNERS[:, 2:]) / 2, CORNERS[:, 2:] - CORNERS[:, :2]
    both = [drawing("result['boxes']", IMAGE, each, each) for each in (CORNERS, np.concatenate([middles, sizes], 1))]
    assert both[0] is not None and both[1] is not None
    assert outlines(both[0][1], 0) == outlines(both[1][1], 0) and len(outlines(both[0][1], 0)) == 3


def test_of_a_batch_the_first_images_boxes_are_on_the_first_image() -> None:
    batch = np.stack([CORNERS[:1], CORNERS[1:2]])
    drawn = drawing("result['boxes']", IMAGE, batch, batch)
    assert drawn is not None and len(outlines(drawn[1], 0)) == 1
    assert drawing("result['boxes']", IMAGE, np.zeros((1, 3, 7)), np.zeros((1, 3, 7))) is None  # in three dimensions


@pytest.mark.slow
@pytest.mark.skipif(executable() is None, reason="no Chromium is installed")
def test_a_browser_draws_the_mark_over_its_bar_and_no_text_on_bars(
    found: ParityResult, record: Record, tmp_path: Path
) -> None:
    crowded = found.model_copy(update={"pairs": (pair(*([0.5] * 40), 1e5, *([0.2] * 40), 1e5),)})
    stage = StageRecord(status="done", result=crowded.model_dump(mode="json"))
    page = tmp_path / "page.html"
    page.write_text(render_report(record.model_copy(update={"stages": {**record.stages, "parity": stage}})))
    browser = Chromium(tmp_path / "profile")
    try:
        browser.open(page.as_uri())
        boxes = browser.ask("""
            (() => {
              const all = kind => [...document.querySelectorAll(`#parity figure.wide ${kind}`)]
                .map(e => [e.getBoundingClientRect(), getComputedStyle(e).fill, e.textContent])
                .map(([r, fill, text]) => ({left: r.left, right: r.right, top: r.top, bottom: r.bottom, fill, text}));
              return {bars: all("rect"), red: all("rect.broken"), mark: all(".break"), texts: all("text")};
            })()
        """)
    finally:
        browser.close()
    (mark,), red = boxes["mark"], boxes["red"]
    assert red[0]["left"] < (mark["left"] + mark["right"]) / 2 < red[0]["right"]
    assert mark["bottom"] <= red[0]["top"] and mark["fill"] == red[0]["fill"] != "none"
    for text in boxes["texts"]:
        for bar in boxes["bars"]:
            beside = text["right"] <= bar["left"] or bar["right"] <= text["left"]
            assert beside or text["bottom"] <= bar["top"] + 1 or bar["bottom"] <= text["top"] + 1, text["text"]
