import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.experiments.comparable import comparables, wilson_interval
from bitwright.experiments.compare import Judgement, compare, difference_interval
from bitwright.experiments.comparison_text import comparison_json, print_comparison
from bitwright.experiments.figure_text import format_change, format_interval, format_value
from bitwright.experiments.record import Figure, Record


def changed(record: Record, *path: str | int, to: Any) -> Record:
    """The record with one value of its JSON replaced."""
    document = record.model_dump(mode="json")
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return Record.model_validate(document)


def result(record: Record, stage: str) -> Any:
    return record.stages[stage].result


def judgement(before: Record, after: Record, quantity: str) -> Judgement:
    (found,) = (each for each in compare(before, after).changes if each.quantity == quantity)
    return found.judgement


RATIO = "quantized / float latency, onnxruntime"
SPEED = ("stages", "measure", "result", "speeds", 0, "ratio")


def with_ratio(record: Record, value: float, half: float) -> Record:
    ratio = {**result(record, "measure")["speeds"][0]["ratio"], "value": value, "low": value - half}
    return changed(record, *SPEED, to={**ratio, "high": value + half})


def with_gate(record: Record, section: str, name: str, limit: float) -> Record:
    return changed(record, "recipe", section, "gate", name, to=limit)


def test_a_run_does_not_differ_from_itself(record: Record) -> None:
    comparison = compare(record, record)
    assert comparison.recipe == comparison.versions == comparison.refused == comparison.fallen_gates == ()
    assert {each.judgement for each in comparison.changes} <= {Judgement.SAME, Judgement.NOT_JUDGED}
    assert {each.quantity for each in comparison.changes} >= {RATIO, "size on disk", "agreement with float"}
    assert comparison.regressions == ()


def test_what_was_asked_differently_is_named(record: Record) -> None:
    after = changed(changed(record, "recipe", "calibrate", "samples", to=99), "versions", "numpy", to="0.1")
    comparison = compare(record, after)
    (setting,) = comparison.recipe
    assert (setting.key, setting.before, setting.after) == ("calibrate.samples", 32, 99)
    (version,) = comparison.versions
    assert (version.key, version.after) == ("numpy", "0.1")


def test_a_latency_beyond_noise_counts_only_with_a_gate(record: Record) -> None:
    fast, slow = with_ratio(record, 0.5, 0.01), with_ratio(record, 0.6, 0.01)
    assert judgement(fast, slow, RATIO) is Judgement.WORSE
    assert judgement(slow, fast, RATIO) is Judgement.BETTER
    assert judgement(fast, with_ratio(record, 0.505, 0.01), RATIO) is Judgement.NOISE
    assert compare(fast, slow).regressions == ()
    assert compare(fast, with_gate(slow, "measure", "max_ratio", 1.0)).regressions == (RATIO,)
    assert compare(slow, with_gate(fast, "measure", "max_ratio", 1.0)).regressions == ()


def test_latencies_of_two_devices_are_refused(record: Record) -> None:
    device = result(record, "measure")["device"]
    comparison = compare(record, changed(record, "stages", "measure", "result", "device", to="Another CPU"))
    refused = {each.quantity: each.reason for each in comparison.refused}
    assert refused[RATIO] == f"another device: {device} against Another CPU"
    assert "quantized latency, onnxruntime" in refused
    assert RATIO not in {each.quantity for each in comparison.changes}
    threads = compare(record, changed(record, "stages", "measure", "result", "threads", to=7))
    assert {each.quantity: each.reason for each in threads.refused}[RATIO] == "another number of threads: 1 against 7"


def test_qualities_on_other_data_are_refused(record: Record) -> None:
    comparison = compare(record, changed(record, "recipe", "data", "size", to=16))
    reasons = {each.quantity: each.reason for each in comparison.refused}
    assert reasons["agreement with float"].startswith("another data")


def test_latencies_of_two_sessions_are_shown_but_not_judged(record: Record) -> None:
    path = ("stages", "measure", "result", "speeds", 0, "quantized_latency", "value")
    after = changed(record, *path, to=1000.0)
    assert judgement(record, after, "quantized latency, onnxruntime") is Judgement.NOT_JUDGED


def test_what_has_no_noise_is_judged_exactly(record: Record) -> None:
    size = result(record, "quantize")["quantized_bytes"]["value"]
    larger = changed(record, "stages", "quantize", "result", "quantized_bytes", "value", to=size + 1)
    assert judgement(record, larger, "size on disk") is Judgement.WORSE
    assert judgement(larger, record, "size on disk") is Judgement.BETTER


def test_a_share_is_judged_by_its_binomial_noise(record: Record) -> None:
    path = ("stages", "evaluate", "result", "agreement")
    agreement = {**result(record, "evaluate")["agreement"], "n": 500, "low": None, "high": None}
    runs = [changed(record, *path, to={**agreement, "value": each}) for each in (98.0, 97.0, 80.0)]
    name = "agreement with float"
    assert judgement(runs[0], runs[1], name) is Judgement.NOISE
    assert judgement(runs[0], runs[2], name) is Judgement.WORSE
    assert compare(runs[0], runs[2]).regressions == (name,)  # the recipe has min_agreement


def test_a_user_s_own_metric_without_an_interval_is_not_judged(record: Record) -> None:
    own = changed(record, "recipe", "evaluate", "entry", to="package.module:function")
    value = result(record, "evaluate")["reference"]["metrics"]["top1"]["value"]
    path = ("stages", "evaluate", "result", "reference", "metrics", "top1", "value")
    assert judgement(own, changed(own, *path, to=value - 20), "top1 float, pytorch") is Judgement.NOT_JUDGED


def test_a_gate_that_falls_is_a_regression(record: Record) -> None:
    gates = [{"name": "g", "holds": True, "wanted": "w", "found": "f"}]
    held = changed(record, "gates", to=gates)
    fallen = changed(record, "gates", to=[{**gates[0], "holds": False}])
    assert compare(held, fallen).regressions == ("gate g",)
    assert compare(fallen, fallen).regressions == ()
    assert compare(fallen, held).regressions == ()


def test_what_only_one_run_has_is_refused(record: Record) -> None:
    stages = {name: stage for name, stage in record.stages.items() if name != "measure"}
    comparison = compare(record, record.model_copy(update={"stages": stages}))
    assert {each.quantity: each.reason for each in comparison.refused}[RATIO] == "only the first run has it"


def test_text_and_json_tell_all(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    after = with_gate(with_ratio(record, 9.0, 0.1), "measure", "max_ratio", 1.0)
    comparison = compare(with_ratio(record, 0.5, 0.01), after)
    print_comparison(comparison)
    text = capsys.readouterr().out
    assert "measure.gate.max_ratio" in text
    assert f"Worse beyond noise where a gate is set: {RATIO}." in text
    document = json.loads(json.dumps(comparison_json(comparison)))
    assert document["regressions"] == [RATIO]
    assert {each["quantity"] for each in document["changes"]} == {each.quantity for each in comparison.changes}


def test_engines_compare_across_versions(record: Record) -> None:
    name = result(record, "measure")["speeds"][0]["runtime"]
    upgraded = changed(record, "stages", "measure", "result", "speeds", 0, "runtime", to=f"{name.split()[0]} 99.0")
    assert judgement(record, upgraded, RATIO) is Judgement.SAME
    assert set(comparables(upgraded)) == set(comparables(record))


def test_the_wilson_interval_is_the_textbook_s() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81/263 gives 0.2553 to 0.3662, 0/20 gives 0 to 0.1611.
    assert wilson_interval(100 * 81 / 263, 263)[1:] == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson_interval(0.0, 20)[1:] == pytest.approx((0.0, 16.11), abs=0.01)
    assert wilson_interval(100.0, 20)[1:] == pytest.approx((83.89, 100.0), abs=0.01)


def test_the_interval_of_a_difference_is_the_textbook_s_for_proportions() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 873, table II, example (a), method 10: 56/70 − 48/80.
    first, second = wilson_interval(60.0, 80), wilson_interval(80.0, 70)
    assert difference_interval(first, second) == pytest.approx((5.24, 33.39), abs=0.01)


def test_the_interval_of_a_difference_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits, trials = 0, 4000
    for a, b in random.normal((3.0, 5.0), (1.0, 0.5), (trials, 2)):
        low, high = difference_interval((a, a - 1.96, a + 1.96), (b, b - 0.98, b + 0.98))
        assert low is not None and high is not None
        hits += low <= 2.0 <= high
    # Standard error of the share: 0.34 points.
    assert hits / trials == pytest.approx(0.95, abs=0.012)


@given(
    st.floats(-100, 100), st.floats(0, 10), st.floats(0, 10), st.floats(-100, 100), st.floats(0, 10), st.floats(0, 10)
)
def test_exchanging_the_runs_mirrors_the_interval(
    a: float, a_below: float, a_above: float, b: float, b_below: float, b_above: float
) -> None:
    first, second = (a, a - a_below, a + a_above), (b, b - b_below, b + b_above)
    forth, back = difference_interval(first, second), difference_interval(second, first)
    assert forth[0] is not None and forth[1] is not None
    assert back == pytest.approx((-forth[1], -forth[0]))
    assert forth[0] <= b - a <= forth[1]


def test_no_noise_known_gives_no_interval() -> None:
    assert difference_interval(None, (1.0, 0.0, 2.0)) == (None, None)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.17690000004, "ms", "0.177 ms"),
        (98.2, "%", "98.20 %"),
        (31.46, "dB", "31.5 dB"),
        (200.0, "dB", "exact"),
        (521_300, "bytes", "521 kB"),
        (3_080_640, "MAC", "3.08 M MACs"),
        (12, "bytes", "12 B"),
        (0.5421, "1", "0.542"),
        (1234.5, "s", "1234 s"),
        (0.0, "s", "0 s"),
        (1e-9, "s", "1.00e-09 s"),
        (math.inf, "1", "inf"),
    ],
)
def test_figures_read_well(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_intervals_and_changes_read_well() -> None:
    assert format_change(-1.207, "%") == "−1.21 points"
    assert format_change(0.0, "bytes") == "±0 B"
    figure = Figure(value=1.0, unit="ms", origin="measured", spread=0.0341)
    assert format_interval(figure) == "IQR 0.0341"
    assert format_interval(figure.model_copy(update={"low": 0.9, "high": 1.1})) == "95 % from 0.900 to 1.10"
    assert format_interval(Figure(value=1.0, unit="ms", origin="quoted")) == ""


def test_commands_end_with_the_documented_codes(finished_run: Path, tmp_path: Path, record: Record) -> None:
    from typer.testing import CliRunner

    from bitwright.experiments.cli import build_app

    runner, app = CliRunner(), build_app()
    same = runner.invoke(app, ["compare", str(finished_run), str(finished_run), "--json"])
    assert same.exit_code == 0
    assert json.loads(same.stdout)["regressions"] == []
    (tmp_path / "record.json").write_text(
        changed(record, "gates", 0, "holds", to=False).model_dump_json(), encoding="utf-8"
    )
    assert runner.invoke(app, ["compare", str(finished_run), str(tmp_path)]).exit_code == 1
    assert runner.invoke(app, ["compare", str(finished_run), str(tmp_path / "nothing")]).exit_code == 2
    report = runner.invoke(app, ["report", str(tmp_path), "--json"])
    assert report.exit_code == 0
    assert Path(json.loads(report.stdout)["report"]).is_file()
    assert Path(json.loads(report.stdout)["tensorboard"]).is_dir()
