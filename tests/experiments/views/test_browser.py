"""The picture is looked at: the report and TensorBoard in headless Chromium."""

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitwright.experiments.read_run import result_of
from bitwright.experiments.record import Record
from bitwright.experiments.report import render_report
from bitwright.experiments.results import ProveResult, QuantizeResult, VerdictResult


@pytest.fixture(scope="module")
def tensorboard(finished_run: Path) -> Iterator[str]:
    """TensorBoard on the run's folder; gives its address."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "tensorboard.main", "--logdir", str(finished_run / "tensorboard"), "--port", "0",
            "--host", "127.0.0.1", "--load_fast", "false", "--samples_per_plugin", "images=100",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if match := re.search(r"at (http://\S+:\d+)/", line):
                yield match.group(1)
                break
        else:
            pytest.fail(f"TensorBoard did not start: {''.join(said)}")
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stderr.close()


def ask(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"{address}/data/plugin/{path}", timeout=30) as answer:
        return json.load(answer)


def tags_when_loaded(address: str, plugin: str, runs: set[str]) -> dict[str, Any]:
    """TensorBoard reads its files in the background."""
    deadline = time.monotonic() + 60
    while not runs <= set(found := ask(address, f"{plugin}/tags")):
        assert time.monotonic() < deadline, f"{plugin}: only {sorted(found)}"
        time.sleep(0.3)
    return found


def test_tensorboard_serves_scalars_images_histograms_and_the_verdict(tensorboard: str, record: Record) -> None:
    runs = {"train", "layers", "float/onnxruntime", "quantized/onnxruntime"}
    scalars = tags_when_loaded(tensorboard, "scalars", runs)
    assert "train/loss" in scalars["train"]
    assert {"quality/top1", "latency/median_ms"} <= set(scalars["quantized/onnxruntime"])
    images = tags_when_loaded(tensorboard, "images", {"summary", "layers"})
    assert {"latency", "sqnr_per_layer"} <= set(images["summary"])
    histograms = tags_when_loaded(tensorboard, "histograms", {"layers"})
    assert any(tag.startswith("activations/") for tag in histograms["layers"])
    tags_when_loaded(tensorboard, "text", {"summary"})
    query = urllib.parse.urlencode({"run": "summary", "tag": "run/verdict/text_summary"})
    verdict = result_of(record, "verdict", VerdictResult)
    assert verdict is not None
    (text,) = ask(tensorboard, f"text/text?{query}")
    assert verdict.headline.split(":")[0] in text["text"]


def test_tensorboard_s_page_renders_curves_pictures_and_the_verdict(
    browser: Any, tensorboard: str, record: Record
) -> None:
    browser.open(f"{tensorboard}/#scalars")
    browser.wait_for(_rendered("median_ms"))
    browser.wait_for(_rendered("own_sqnr_db"))
    # Another query, so that the browser loads the page anew instead of only moving to the fragment.
    browser.open(f"{tensorboard}/?images#images")
    browser.wait_for(_rendered("sqnr_per_layer"))
    browser.wait_for(f"({_DEEP})('img').filter(each => each.naturalWidth > 300).length >= 2")
    browser.open(f"{tensorboard}/?histograms#histograms")
    browser.wait_for(_rendered("activations"))
    browser.open(f"{tensorboard}/?text#text")
    verdict = result_of(record, "verdict", VerdictResult)
    assert verdict is not None
    browser.wait_for(_rendered(verdict.headline.split(":")[0]))


# All elements that match a selector, also inside web components.
_DEEP = """(selector => { const found = []; const search = root => {
  found.push(...root.querySelectorAll(selector));
  for (const each of root.querySelectorAll('*')) if (each.shadowRoot) search(each.shadowRoot);
}; search(document); return found; })"""


def _rendered(text: str) -> str:
    """Whether an element that takes up room on the page holds this text."""
    return (
        f"({_DEEP})('*').some(each => each.getClientRects().length && "
        f"[...each.childNodes].some(node => node.nodeType === 3 && node.textContent.includes({json.dumps(text)})))"
    )


@pytest.fixture(scope="module")
def report(browser: Any, finished_run: Path) -> Any:
    browser.open((finished_run / "report.html").as_uri())
    return browser


def test_the_verdict_and_every_drawing_take_up_room(report: Any, record: Record) -> None:
    verdict = result_of(record, "verdict", VerdictResult)
    assert verdict is not None
    assert report.ask("document.querySelector('#verdict h2').innerText") == verdict.headline
    sizes = report.ask("[...document.querySelectorAll('svg.chart')].map(e => [e.clientWidth, e.clientHeight])")
    assert len(sizes) >= 9
    assert min(min(size) for size in sizes) > 40
    assert report.messages == []


def test_nothing_is_cut_off_at_the_side(report: Any) -> None:
    assert report.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_texts_of_a_drawing_stay_inside_it(report: Any) -> None:
    outside = report.ask(
        "[...document.querySelectorAll('svg.chart text')].filter(text => { const a = text.getBoundingClientRect(),"
        " b = text.closest('svg').getBoundingClientRect(); return a.left < b.left - 1 || a.right > b.right + 1"
        " || a.top < b.top - 1 || a.bottom > b.bottom + 1; }).map(text => text.textContent)"
    )
    assert outside == []


def test_the_page_asks_nobody_for_anything(report: Any) -> None:
    report.requests.clear()
    report.command("Page.reload")
    report.wait_for("document.readyState === 'complete'")
    assert [url for url in report.requests if not url.startswith(("file:", "data:"))] == []
    assert report.requests


def test_a_click_on_a_head_sorts_the_proof(report: Any, record: Record) -> None:
    proved = result_of(record, "prove", ProveResult)
    assert proved is not None
    shares = [layer.time_share for layer in proved.proofs[0].layers]
    table = "document.querySelectorAll('#proof table')[0]"
    read = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[5].dataset.value))"
    click = f"{table}.tHead.rows[0].cells[5].querySelector('button').click()"
    assert report.ask(read) == pytest.approx(shares)
    report.ask(click)
    assert report.ask(read) == pytest.approx(sorted(shares))
    report.ask(click)
    assert report.ask(read) == pytest.approx(sorted(shares, reverse=True))
    assert report.ask(f"{table}.tHead.rows[0].cells[5].getAttribute('aria-sort')") == "descending"


def test_hovering_names_the_layer(report: Any, record: Record) -> None:
    quantized = result_of(record, "quantize", QuantizeResult)
    assert quantized is not None
    first = next(each for each in quantized.tensors if each.kind == "activation")
    report.ask("document.querySelector('#layers rect.own[data-hint]').dispatchEvent(new MouseEvent('mouseenter'))")
    assert report.ask("document.getElementById('hint').hidden") is False
    assert report.ask("document.getElementById('hint').innerText").startswith(first.tensor)


def test_hovering_over_the_front_shows_the_candidate_and_why_others_died(
    browser: Any, full_record: Record, tmp_path: Path
) -> None:
    page = tmp_path / "full.html"
    page.write_text(render_report(full_record), encoding="utf-8")
    browser.open(page.as_uri())
    for selector, words in (
        ("circle.front[data-hint]", "On the front: width"),
        ("path.refused[data-hint]", "int16 <weights> are not permitted"),
    ):
        browser.ask(f"document.querySelector('#search {selector}').dispatchEvent(new MouseEvent('mouseenter'))")
        assert words in browser.ask("document.getElementById('hint').innerText")
    assert "QAT against PTQ: +17.50 points" in browser.ask("document.querySelector('#qat').innerText")


def test_dark_and_light_are_both_readable(report: Any, finished_run: Path) -> None:
    report.open((finished_run / "report.html").as_uri())
    contrasts = {}
    for scheme in ("light", "dark"):
        report.emulate(prefers_color_scheme=scheme)
        contrasts[scheme] = report.ask(_LEAST_CONTRAST)
    report.emulate(prefers_color_scheme="light")
    # WCAG 2.2, success criterion 1.4.3.
    assert min(contrasts.values()) >= 4.5, contrasts


_LEAST_CONTRAST = """(() => {
  const light = color => { const parts = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]; };
  const behind = element => { for (let e = element; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor; if (!/, 0\\)|transparent/.test(color)) return color; }
    return 'rgb(255, 255, 255)'; };
  const texts = [...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && e.getClientRects().length &&
    [...e.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
  return Math.min(...texts.map(e => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
})()"""


def test_paper_shows_every_layer(report: Any, record: Record, tmp_path: Path) -> None:
    proved = result_of(record, "prove", ProveResult)
    assert proved is not None
    report.ask("window.dispatchEvent(new Event('beforeprint'))")
    assert report.ask("[...document.querySelectorAll('details')].every(each => each.open)")
    report.emulate(media="print")
    heights = report.ask("[...document.querySelectorAll('.tall')].map(e => [e.clientHeight, e.scrollHeight])")
    # A4 within the page's margins: (210 - 2 * 14) mm at 96 pixels an inch.
    report.command("Emulation.setDeviceMetricsOverride", width=688, height=1000, deviceScaleFactor=1, mobile=False)
    width = report.ask("document.documentElement.scrollWidth")
    report.command("Emulation.clearDeviceMetricsOverride")
    report.emulate()
    assert width <= 688
    assert heights
    assert all(shown >= needed for shown, needed in heights)
    assert report.print_pdf(tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
