import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import escape

from bitwright.experiments.read_run import read_record, result_of
from bitwright.experiments.record import Figure, Gate, Record, StageRecord
from bitwright.experiments.report import render_report, write_report
from bitwright.experiments.report.charts import spread_apart
from bitwright.experiments.report.headline import headline_rows
from bitwright.experiments.report.svg import Scale, Svg
from bitwright.experiments.results import (
    EvaluateResult,
    LintResult,
    MeasureResult,
    ProveResult,
    QuantizeResult,
    VerdictResult,
)
from bitwright.experiments.views import write_views
from bitwright.quant.errors import InputError


class Page(HTMLParser):
    """The page's elements, texts by tag, and everything that would be loaded."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [str(given[name]) for name in ("src", "href", "xlink:href", "action") if name in given]
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.stack):
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


@pytest.fixture(scope="session")
def page(finished_run: Path) -> Page:
    return Page((finished_run / "report.html").read_text(encoding="utf-8"))


def with_result(record: Record, stage: str, **changes: object) -> Record:
    done = record.stages[stage]
    result = {**done.result, **changes}
    return record.model_copy(update={"stages": {**record.stages, stage: done.model_copy(update={"result": result})}})


def test_a_run_leaves_its_page(finished_run: Path) -> None:
    assert (finished_run / "report.html").stat().st_size > 20_000
    assert not list(finished_run.glob(".*.partial"))


def test_the_page_requests_nothing(page: Page, finished_run: Path) -> None:
    assert page.addresses == ["data:,"]
    html = (finished_run / "report.html").read_text()
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|<script[^>]+src", html)


def test_the_page_is_well_formed(page: Page) -> None:
    assert page.unbalanced == []
    assert page.stack == []
    assert len(page.ids) == len(set(page.ids))


def test_the_verdict_comes_first_with_every_gate(page: Page, record: Record) -> None:
    verdict = result_of(record, "verdict", VerdictResult)
    assert verdict is not None
    for sentence in (verdict.headline, *verdict.statements, *verdict.holds_back, *verdict.changes):
        assert sentence in page.text
    for gate in record.gates:
        assert f"{gate.name} {gate.wanted} {gate.found}" in page.text
    assert page.text.index(verdict.headline) < page.text.index("Figures Quantity")


def test_every_layer_of_every_runtime_is_on_the_page(page: Page, record: Record) -> None:
    proved = result_of(record, "prove", ProveResult)
    assert proved is not None and proved.proofs
    for proof in proved.proofs:
        for layer in proof.layers:
            assert layer.layer in page.text
            assert layer.reason in page.text


def test_every_figure_of_the_table_says_where_it_comes_from(record: Record) -> None:
    rows = list(headline_rows(record))
    assert {row.quantity for row in rows} >= {"top1", "latency", "size on disk", "MACs in low precision"}
    for row in rows:
        assert row.origins
        for figure in row.origins:
            assert figure.source
    html = render_report(record)
    assert html.count('class="badge measured"') > len(rows)


def test_numbers_are_the_records(page: Page, record: Record) -> None:
    evaluated = result_of(record, "evaluate", EvaluateResult)
    measured = result_of(record, "measure", MeasureResult)
    assert evaluated is not None and measured is not None
    assert f"{evaluated.reference.metrics['top1'].value:.2f} %" in page.text
    assert f"{evaluated.sqnr.value:.1f} dB" in page.text
    assert measured.speeds
    for row in measured.speeds:
        assert f"× {row.ratio.value:.3f}" in page.text


def test_drawings_are_described(finished_run: Path) -> None:
    html = (finished_run / "report.html").read_text()
    drawings = re.findall(r"<svg viewBox.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) >= 9
    for each in drawings:
        assert re.search(r'role="img"', each)
        assert re.search(r"<title id=.+?>[^<]+</title><desc id=.+?>[^<]+</desc>", each)


def test_worst_layers_have_their_clip_lines(record: Record, page: Page) -> None:
    quantized = result_of(record, "quantize", QuantizeResult)
    assert quantized is not None
    activations = [each for each in quantized.tensors if each.kind == "activation"]
    worst = min(activations, key=lambda each: each.own_sqnr.value)
    assert f"{worst.low:.4g}" in page.text
    assert f"{worst.high:.4g}" in page.text


def test_findings_underline_the_users_line(awkward_run: Path) -> None:
    linted = result_of(read_record(awkward_run), "lint", LintResult)
    assert linted is not None
    marked = [each for each in linted.findings if each.focus and each.focus in each.text]
    assert marked
    html = (awkward_run / "report.html").read_text()
    for each in marked:
        assert f"<u>{escape(each.focus)}</u>" in html
    assert "Not measured: none of the target" in html
    assert "None of the target's runtimes is here" in html
    assert "✗ Gate failed" in html


def test_a_finding_says_what_is_at_stake_and_that_a_model_says_so(record: Record) -> None:
    finding = {
        "rule": "float_island", "severity": "warning", "node": "n", "module_path": "head", "found": "f", "allowed": "g",
        "suggestion": "h", "source": "net.py:3", "calls": 3,
        "cost": {"value": 12.345, "unit": "µs", "origin": "modelled", "source": "cost model of orin-dla"},
    }  # fmt: skip
    ignored = {**finding, "cost": None, "found": "sin runs on the host", "reason": "twice a day"}
    html = render_report(
        with_result(record, "lint", findings=[finding], ignored=[ignored], notices=["net.py:4: of no use"])
    )
    text = Page(html).text
    assert re.search(r"at stake 12\.\d* µs modelled in 3 calls", text)
    assert "1 ignored by comments in the source net.py:3 float_island: sin runs on the host (twice a day)" in text
    assert "net.py:4: of no use" in text
    assert "cost model of orin-dla" in html


def test_names_from_the_users_files_cannot_break_out(record: Record) -> None:
    evil = "<script>alert(1)</script>"
    lint = record.stages["lint"].result
    finding = {
        "rule": "dtype", "severity": "error", "node": "n", "module_path": evil, "found": evil, "allowed": "x",
        "suggestion": "y", "source": "a.py:1", "text": f"x = '{evil}' + 1", "focus": evil,
    }  # fmt: skip
    quantized = json.loads(json.dumps(record.stages["quantize"].result))
    for each in quantized["tensors"]:
        each["tensor"] = evil
    changed = with_result(record, "lint", findings=[*lint["findings"], finding])
    html = render_report(with_result(changed, "quantize", **quantized).model_copy(update={"name": evil}))
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    assert Page(html).unbalanced == []


def test_qat_and_search_are_shown(full_record: Record) -> None:
    html = render_report(full_record)
    page = Page(html)
    assert page.unbalanced == []
    assert (
        "weights int4 per channel; 3 epochs. QAT against PTQ: +17.50 points measured 95 % from 14.00 to 21.00"
        in page.text
    )
    assert "6 different candidates, 2 on the front; 2 infeasible, with no training at all, 1 failed" in page.text
    assert "On the front: width 1.0, formats int8; top1 95.00 %, latency 0.400 ms" in page.text
    assert html.count('class="refused"') == 3  # two candidates and the legend
    assert "lint.dtype 2 int16 <weights> are not permitted" in page.text
    assert "train: no memory left" in page.text


def test_a_search_alone_stands_where_the_verdict_would(full_record: Record) -> None:
    alone = full_record.model_copy(update={"stages": {"search": full_record.stages["search"]}, "gates": ()})
    text = Page(render_report(alone)).text
    assert "6 candidates tried, 2 on the front; best in top1: width 1.0, formats int8; top1 95.00 %" in text
    assert "no verdict yet" not in text


def test_labels_of_curves_do_not_cover_each_other() -> None:
    assert spread_apart({"a": 10.0, "b": 12.0, "c": 100.0}, least=14.0) == {"a": 10.0, "b": 24.0, "c": 100.0}


def test_an_unfinished_run_says_what_failed(record: Record) -> None:
    stages = {
        "train": record.stages["train"],
        "lint": record.stages["lint"],
        "quantize": StageRecord(status="failed", reason="calibration batch 3: NaN"),
    }
    html = render_report(record.model_copy(update={"stages": stages, "gates": (), "passed": None, "finished": None}))
    assert "This run has no verdict yet." in html
    assert "Stage quantize failed: calibration batch 3: NaN" in html
    assert Page(html).unbalanced == []


def test_an_unchecked_gate_is_neither_passed_nor_failed(record: Record) -> None:
    gate = Gate(name="speed", holds=None, wanted="<= 1", found="not measured")
    assert "? not checked" in render_report(record.model_copy(update={"gates": (gate,)}))


def test_quoted_and_modelled_figures_carry_their_badge(record: Record) -> None:
    quoted = Figure(value=1.0, unit="s", origin="quoted", source="manual, table 3")
    html = render_report(with_result(record, "quantize", calibrate_seconds=quoted.model_dump()))
    assert '<span class="badge quoted" title="manual, table 3">quoted</span>' in html


def test_the_page_says_how_to_get_the_run_again(page: Page, record: Record) -> None:
    torch_version = record.versions["torch"].split("+")[0]
    assert f"torch=={torch_version}" in page.text
    assert "+cpu" not in page.text.split("How to get this again")[1].split("Machine")[0]
    assert "bitwright run recipe.resolved.yaml" in page.text
    assert "digits_mobilenet" in page.text


def test_no_run_and_a_damaged_run_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"record\.json: No such file or directory; give the folder of a run"):
        write_report(tmp_path, tmp_path / "report.html")
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(InputError, match=r"record\.json: .*damaged, or written by another version of Bitwright"):
        write_report(tmp_path, tmp_path / "report.html")


def test_a_result_of_another_version_is_named(record: Record) -> None:
    with pytest.raises(InputError, match=r"stages\.verdict\.result\.surprise: Extra inputs are not permitted"):
        render_report(with_result(record, "verdict", surprise=1))


def test_a_folder_that_cannot_be_written_keeps_the_results(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bitwright.experiments.report.page.replace_file", full)
    with pytest.raises(InputError, match=r"cannot write the report \(No space left on device\); .* bitwright report"):
        write_views(finished_run, tensorboard=False)


def test_ticks_are_round_and_inside() -> None:
    assert Scale(0.0, 1.0, 0, 100).ticks(5) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(-3.7, 4.1, 0, 100).ticks(4) == pytest.approx([-2.0, 0.0, 2.0, 4.0])
    assert Scale(5.0, 5.0, 0, 100).ticks() == [5.0]


def test_positions_stay_on_the_drawing() -> None:
    scale = Scale(0.0, 10.0, 20.0, 120.0)
    assert [scale(value) for value in (-5.0, 0.0, 5.0, 20.0)] == [20.0, 20.0, 70.0, 120.0]


def test_a_drawing_escapes_its_texts() -> None:
    drawing = Svg(10, 10, name="x", title="a < b", description="<script>")
    drawing.text((1, 1), "</svg><script>")
    markup = str(drawing.markup())
    assert "<script>" not in markup
    assert "&lt;script&gt;" in markup
