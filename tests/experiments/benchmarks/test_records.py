import json

import pytest

from bitwright.experiments.benchmarks import records
from bitwright.experiments.benchmarks.records import Reach
from bitwright.experiments.benchmarks.results_page import render, write_page

FIELDS = {"row", "area", "value", "reach", "holds", "n", "spread", "versions", "date"}


def a_record(**changes):
    arguments = {"area": "quant", "value": 96.0, "unit": "%", "n": 800, "reach": Reach("≥", 95.0)} | changes
    return records.record("accuracy.agreement", **arguments)


@pytest.mark.parametrize(
    ("reach", "value", "spread", "holds"),
    [
        (Reach("≥", 95.0), 95.0, None, True),
        (Reach("≥", 95.0), 94.9, None, False),
        (Reach("≤", 1.03), 1.03, None, True),
        (Reach("≤", 1.03, of="high"), 1.0, (0.9, 1.04), False),
        (Reach("≥", 17.5, of="low"), 17.6, (17.5, 17.7), True),
        (Reach("=", 100.0), 100.0, None, True),
        (Reach("=", 100.0), 99.9, None, False),
        (Reach("=", 100.0), 100 * sum([1 / 3, 1 / 7, 11 / 21]), None, True),
        (Reach("=", 0.0), 1.0, None, False),
    ],
)
def test_a_figure_holds_when_it_reaches_its_limit(reach, value, spread, holds):
    assert reach.holds(value, spread) is holds


def test_an_interval_has_to_be_there_to_be_asked_for():
    with pytest.raises(ValueError, match=r"upper 95 % bound ≤ 1\.03: the figure has no interval"):
        Reach("≤", 1.03, of="high").holds(1.0, None)


def test_a_record_carries_everything_that_a_reader_needs():
    written = a_record(spread=(94.5, 97.0), peers={"nncf": "3.4.0"})
    assert {*written.__dataclass_fields__} >= FIELDS
    assert written.holds is True
    assert written.reach == "≥ 95"
    assert written.versions["nncf"] == "3.4.0"
    assert {"torch", "onnxruntime", "python", "cpu", "isa"} <= set(written.versions)


def test_records_survive_the_disk(tmp_path):
    file = records.write("accuracy", [a_record()], tmp_path)
    assert json.loads(file.read_text())[0]["value"] == 96.0
    assert records.read_all(tmp_path)["accuracy"][0]["row"] == "accuracy.agreement"


def test_writing_replaces_what_an_older_run_left(tmp_path):
    records.write("accuracy", [a_record(), a_record()], tmp_path)
    records.write("accuracy", [a_record()], tmp_path)
    assert len(records.read_all(tmp_path)["accuracy"]) == 1


def test_the_page_shows_missed_and_printed_figures(tmp_path):
    missed = a_record(value=90.0)
    printed = a_record(reach=None, unit="points", value=-0.4, spread=(-1.0, 0.2))
    records.write("accuracy", [a_record(), missed, printed], tmp_path)
    text = write_page(tmp_path, tmp_path / "RESULTS.md").read_text()
    assert "1 of 2 figures reach what they have to." in text
    assert "**missed**" in text
    assert "-0.4 points [-1, 0.2]" in text


def test_the_page_shows_a_table_once(tmp_path):
    table = [{"who": "ours", "SQNR dB": 18.0}, {"who": "a|b", "SQNR dB": None}]
    records.write("accuracy", [a_record(table=table), a_record(table=table)], tmp_path)
    text = render(records.read_all(tmp_path))
    assert text.count("| ours | 18 |") == 1
    assert r"| a\|b | – |" in text
