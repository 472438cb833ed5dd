"""A search of many candidates on the page and in words; what a drawing leaves out is said."""

import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bitwright.experiments.read_run import result_of
from bitwright.experiments.record import Record, StageRecord
from bitwright.experiments.report import render_report
from bitwright.experiments.search_command import front_table, print_front
from bitwright.experiments.search_progress import SearchProgress, ways_to_watch
from bitwright.experiments.search_result import Finalist, Limit, SearchResult
from bitwright.experiments.search_text import importance_text, limit_text
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.review_limits import limit_costs
from bitwright.nas.search_outcome import SearchOutcome, Told


def _candidate(number: int, dice: random.Random) -> Result:
    values: dict[str, Any] = {f"choice_{index}": dice.choice([1, 2, 3]) for index in range(14)}
    common: dict[str, Any] = {"key": f"{number:016x}", "values": values}
    if number % 3 == 0:
        name = ("weight_bytes", "latency_ms", "lint.dtype")[number // 3 % 3]
        refused = Violation(constraint=name, amount=dice.random(), reason=f"{name} is <too> large")
        figures = {"accuracy": 99.0 + number / 1e4} if name == "latency_ms" and number % 2 else {}
        return Result(**common, outcome=Outcome.INFEASIBLE, stage="lint", violations=(refused,), figures=figures)
    accuracy = 80.0 + 5 * values["choice_0"] + dice.gauss(0, 0.5)
    figures = {"accuracy": accuracy, "latency_ms": values["choice_0"] + values["choice_1"] + dice.gauss(0, 0.1)}
    return Result(**common, outcome=Outcome.SCORED, stage="measure", figures=figures, seconds={"lint": 0.1, "train": 2})


@pytest.fixture(scope="module")
def large() -> SearchResult:
    dice = random.Random(0)
    results = [_candidate(number, dice) for number in range(750)]
    trials = tuple(Told(number=number, result=each, repeated=False) for number, each in enumerate(results))
    outcome = SearchOutcome(trials=trials, objectives=("accuracy", "latency_ms"), maximize=(True, False))
    limits = tuple(Limit(cost=each, recipe="" if each.known else f"finalists/without-{each.constraint}.yaml")
                   for each in limit_costs(outcome))  # fmt: skip
    finalists = tuple(Finalist(key=each.key, recipes=(f"finalists/{each.key}.yaml",)) for each in outcome.front)
    return SearchResult.of(outcome, metric="top1", unit="%", device="a CPU", finalists=finalists, limits=limits)


@pytest.fixture(scope="module")
def page(large: SearchResult, full_record: Record) -> str:
    stage = StageRecord(status="done", result=large.model_dump(mode="json"))
    return render_report(full_record.model_copy(update={"stages": {"search": stage}, "gates": ()}))


def _words(page: str) -> str:
    parser = HTMLParser(convert_charrefs=True)
    words: list[str] = []
    parser.handle_data = words.append  # type: ignore[method-assign]
    parser.feed(page)
    return " ".join(" ".join(words).split())


def test_what_is_left_out_of_drawings_and_tables_is_said(page: str, large: SearchResult) -> None:
    words = _words(page)
    front = len(large.outcome.front)
    assert f"750 different candidates, {front} on the front; 250 infeasible" in words
    assert page.count('class="scored"') == 500 - front + 1  # and the legend
    assert page.count('class="refused"') == 61
    assert "each stands for about 4, in the order in which they were tried" in words
    assert "10 of 14 choices, those that the objectives hang on most" in words
    others = page.count('class="other-line"')
    assert f"{others} of {500 - front} that are not on the front" in words
    assert others <= 400
    assert "The first 100 of 250 infeasible candidates" in words
    assert "2 more choices count less." in words


def test_every_candidate_of_the_front_names_its_recipe(page: str, large: SearchResult) -> None:
    table = page[page.index("<h3>The front</h3>") :].split("</table>")[0]
    assert re.findall(r"finalists/(\w+)\.yaml", table) == [each.key for each in large.outcome.front]


def test_importance_and_limits_in_words(page: str, large: SearchResult) -> None:
    accuracy, latency = (importance_text(large, each) for each in large.importance)
    assert re.match(r"top1 hangs on choice_0 (9\d|100) % \[\d+, \d+\], nothing to be seen of 13 more; ", accuracy)
    assert re.search(r"; \d\d% explained on unseen candidates$", accuracy)
    assert re.match(r"latency hangs on choice_[01] [45]\d % .*, choice_[01] [45]\d %", latency)
    told = {each.cost.constraint: limit_text(large, each, Path("runs/a")) for each in large.limits}
    best = max(each.figures["accuracy"] for each in large.outcome.scored)
    refused = [each for each in large.outcome.results if "accuracy" in each.figures and each.violations]
    found = max(refused, key=lambda each: each.figures["accuracy"])
    gain = found.figures["accuracy"] - best
    assert told["latency_ms"] == (
        f"latency_ms alone refused 83: without it top1 +{gain:.2f} points at least "
        f"({len(refused)} of 83 have it; best is {found.key})"
    )
    assert told["lint.dtype"] == (
        "lint.dtype alone refused 83: cost not known, none has top1; to find out: "
        "bitwright run runs/a/finalists/without-lint.dtype.yaml --until evaluate"
    )
    assert "bitwright run finalists/without-weight_bytes.yaml --until evaluate" in _words(page)


def test_few_candidates_are_not_ranked(full_record: Record) -> None:
    search = result_of(full_record, "search", SearchResult)
    assert search is not None
    assert importance_text(search, search.importance[0]) == (
        "top1: scored candidates: 3; 10 are the least that can tell anything"
    )


def test_a_running_search_says_what_is_best_so_far(search_result: SearchResult) -> None:
    progress = SearchProgress(search_result.objectives, search_result.maximize)
    lines = []
    for told in search_result.outcome.trials:
        progress.add(told)
        lines.append(progress.text)
    assert lines[0] == "1 scored; 1 on the front, accuracy 90 at best"
    assert lines[-1] == "3 scored, 2 infeasible, 1 failed; 2 on the front, accuracy 95 at best"


def test_where_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ways_to_watch(Path("runs/a/search-1"), None) == [
        "study     optuna-dashboard sqlite:///runs/a/search-1/study.db    (pip install 'bitwright[dashboard]')"
    ]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    shared = ways_to_watch(Path("runs/a"), "postgresql://host/studies", "http://head:8787/status")
    assert shared == [
        "study     optuna-dashboard postgresql+psycopg://host/studies",
        "workers   http://head:8787/status",
    ]


def test_the_terminal_shows_the_front_what_refused_others_and_where_to_look(
    full_record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    print_front(full_record, Path("runs/a"))
    lines = capsys.readouterr().out.splitlines()
    table = [line.split("  ") for line in lines[:3]]
    assert [[cell.strip() for cell in row if cell] for row in table] == [
        ["candidate", "accuracy (measured)", "latency_ms (measured)", "width", "formats"],
        ["0002", "95.00 %", "0.400 ms", "1.0", "int8"],
        ["0000", "90.00 %", "0.200 ms", "0.5", "int8"],
    ]
    assert lines[4] == ("6 candidates, 3 scored, 2 on the front; 2 infeasible, 2 of them with no training at all")
    assert "  lint.dtype refused 2, for example: int16 <weights> are not permitted" in lines
    assert lines[-1].startswith("study     optuna-dashboard sqlite:///runs/a/search-")


def test_a_terminal_has_room_for_the_choices_that_objectives_hang_on(large: SearchResult) -> None:
    heads, rows = front_table(large, large.outcome)
    assert heads[:3] == ["candidate", "accuracy (measured)", "latency_ms (measured)"]
    assert len(heads) == 3 + 8
    assert {"choice_0", "choice_1"} <= set(heads)
    assert [row[0] for row in rows] == [each.key for each in large.outcome.front]
    assert all(row[heads.index("choice_0")] == str(each.values["choice_0"])
               for row, each in zip(rows, large.outcome.front, strict=True))  # fmt: skip
