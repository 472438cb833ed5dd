from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.hw_constraints.figures import (
    Agreement,
    Execution,
    Figures,
    FloatLayer,
    Gate,
    Interval,
    MetricComparison,
    ModelledLatency,
    SpeedComparison,
)
from bitwright.hw_constraints.verdict import Speed, compare_speed, judge


def speed(value: float, low: float, high: float, runtime: str = "ORT 1.31") -> SpeedComparison:
    ratio = Interval(value=value, low=low, high=high)
    return SpeedComparison(
        runtime=runtime, device="cpu, 1 thread", float_us=10_000, quantized_us=10_000 * value, ratio=ratio, pairs=100
    )


def metric(value: float, difference: Interval | None) -> MetricComparison:
    return MetricComparison(
        name="top-1", float_value=82.5, quantized_value=value, higher_is_better=True, difference=difference, unit=" %"
    )


FASTER = Figures(network="net", target="x86-vnni", speed=(speed(0.5, 0.48, 0.53),))


def test_faster_with_its_interval() -> None:
    verdict = judge(FASTER)
    assert verdict.speed is Speed.FASTER and verdict.passed
    assert verdict.headline == (
        "net on x86-vnni: 2.00x as fast (95 % between 1.89x and 2.08x); quality was not measured."
    )
    assert "5.000 ms against 10.000 ms in float" in verdict.statements[0] and "100 pairs" in verdict.statements[0]


def test_slower() -> None:
    verdict = judge(replace(FASTER, speed=(speed(1.25, 1.2, 1.3),)))
    assert verdict.speed is Speed.SLOWER
    assert "slower by 25 % (95 % between 20 % and 30 %)" in verdict.headline


@given(st.floats(0.5, 1.0), st.floats(1.0, 1.5))
def test_an_interval_around_one_is_noise(low: float, high: float) -> None:
    comparison = speed((low + high) / 2, low, high)
    assert compare_speed(comparison) is Speed.NO_DIFFERENCE
    assert "inside the noise" in judge(replace(FASTER, speed=(comparison,))).headline


@given(st.floats(0.1, 0.99), st.floats(0.0, 0.2), st.floats(0.0, 0.2))
def test_an_interval_beside_one_is_not(value: float, below: float, above: float) -> None:
    comparison = speed(value, value - min(below, value / 2), min(value + above, 0.999))
    assert compare_speed(comparison) is Speed.FASTER
    inverted = speed(1 / value, 1 / comparison.ratio.high, 1 / comparison.ratio.low)
    assert compare_speed(inverted) is Speed.SLOWER


def test_runtimes_that_disagree_are_both_named() -> None:
    verdict = judge(replace(FASTER, speed=(speed(0.5, 0.4, 0.6), speed(1.01, 0.97, 1.04, "OpenVINO"))))
    assert verdict.speed is Speed.MIXED
    assert "in ORT 1.31, no faster" in verdict.headline and "in OpenVINO" in verdict.headline


def test_what_was_not_measured_is_called_that() -> None:
    verdict = judge(Figures(network="net", target="h200"))
    assert verdict.speed is Speed.NOT_MEASURED
    assert verdict.headline == "net on h200: its speed was not measured here; quality was not measured."
    assert not verdict.statements


@pytest.mark.parametrize(("is_whole", "said"), [(True, "1.250 ms"), (False, "at least 1.250 ms")])
def test_what_a_cost_model_says_is_never_called_measured(is_whole: bool, said: str) -> None:
    modelled = ModelledLatency(us=1250, model="ethos_u", is_whole=is_whole)
    verdict = judge(Figures(network="net", target="u85", modelled=modelled))
    assert verdict.speed is Speed.NOT_MEASURED
    assert f"its speed was not measured here, {said} by the cost model 'ethos_u'; " in verdict.headline
    assert verdict.statements[0] == f"Modelled, not measured, on u85: {said} by the cost model 'ethos_u'."


@pytest.mark.parametrize(
    ("value", "difference", "words"),
    [
        (82.4, Interval(value=-0.1, low=-0.6, high=0.4), "the difference is inside the noise"),
        (81.0, Interval(value=-1.5, low=-2.1, high=-0.9), "worse (95 % from -2.1 to -0.9)"),
        (83.5, Interval(value=1.0, low=0.4, high=1.6), "better (95 % from +0.4 to +1.6)"),
        (81.0, None, "top-1: 81 % against 82.5 % in float."),
    ],
)
def test_quality(value: float, difference: Interval | None, words: str) -> None:
    verdict = judge(replace(FASTER, metrics=(metric(value, difference),)))
    assert words in verdict.statements[1]
    suffers = difference is not None and difference.high < 0
    assert any("suffers" in change for change in verdict.changes) is suffers


def test_a_metric_where_less_is_better() -> None:
    error = replace(
        metric(3.0, Interval(value=0.5, low=0.2, high=0.8)), name="minADE", higher_is_better=False, unit=" m"
    )
    verdict = judge(replace(FASTER, metrics=(error,)))
    assert "worse" in verdict.statements[1] and verdict.changes == (
        "minADE suffers: keep the most sensitive layers in float, or train on (QAT)",
    )


def test_agreement_and_size() -> None:
    agreement = Agreement(share=0.952, samples=800, sqnr_db=17.64)
    verdict = judge(replace(FASTER, agreement=agreement, float_bytes=14_000_000, quantized_bytes=3_500_000))
    assert verdict.statements[1:] == (
        "Decides as the float network on 95.20 % of 800 samples, outputs at 17.6 dB SQNR.",
        "3.50 MB on disk, 0.25 of the float file's 14.00 MB.",
    )


def test_what_holds_it_back_is_grouped_by_reason_with_the_costliest_first() -> None:
    layers = tuple(FloatLayer(layer=f"b.{i}", time_share=0.01, reason="activation s8") for i in range(4))
    up = FloatLayer(layer="up", time_share=0.2, reason="no int8 kernel", suggestion="upsample and convolve")
    execution = Execution(low_precision_macs=0.9, conversion_share=0.08, float_layers=(*layers, up))
    verdict = judge(replace(FASTER, execution=execution))
    assert verdict.holds_back == (
        "1 layer in float (20 % of the time): no int8 kernel: up",
        "4 layers in float (4 % of the time): activation s8: b.0, b.1, b.2 and 1 more",
        "8 % of the time converts between formats and layouts",
    )
    assert verdict.changes == ("up: upsample and convolve",)
    assert "90.0 % of the multiply-accumulates ran in low precision." in verdict.statements


def test_codes_that_nothing_executes_are_not_said_to_run() -> None:
    verdict = judge(replace(FASTER, execution=Execution(low_precision_macs=1.0, executed=False)))
    assert (
        "100.0 % of the multiply-accumulates are in low precision in the file; none ran so here." in verdict.statements
    )


def test_too_few_pairs() -> None:
    comparison = replace(speed(0.5, 0.0, float("inf")), pairs=3)
    verdict = judge(replace(FASTER, speed=(comparison,)))
    assert verdict.speed is Speed.NO_DIFFERENCE
    assert "a ratio of 0.500 from 3 pairs, too few to tell it from noise" in verdict.headline


def test_unknown_times_are_not_invented() -> None:
    layer = FloatLayer(layer="a", time_share=None, reason="r")
    verdict = judge(replace(FASTER, execution=Execution(low_precision_macs=0.5, float_layers=(layer,))))
    assert verdict.holds_back == ("1 layer in float: r: a",)


def test_a_network_too_small_to_gain_stays_in_float() -> None:
    execution = Execution(low_precision_macs=1.0)
    verdict = judge(replace(FASTER, speed=(speed(1.1, 1.05, 1.2),), execution=execution))
    assert "too small to gain" in verdict.changes[0]
    assert not judge(replace(FASTER, execution=execution)).changes


@pytest.mark.parametrize(
    ("gate", "passed", "text"),
    [
        (Gate(name="top-1", value=81.5, at_least=82), False, "top-1 = 81.5, wanted >= 82: FAILED"),
        (Gate(name="ratio", value=0.5, at_most=0.8), True, "ratio = 0.5, wanted <= 0.8: passed"),
        (Gate(name="mAP", value=None, at_least=0.3), False, "mAP = not measured, wanted >= 0.3: FAILED"),
        (Gate(name="mAP", value=float("nan"), at_least=0.3), False, "mAP = nan, wanted >= 0.3: FAILED"),
        (Gate(name="x", value=1.0, at_least=1.0, at_most=1.0), True, "x = 1, wanted >= 1 and <= 1: passed"),
    ],
)
def test_gates(gate: Gate, passed: bool, text: str) -> None:
    verdict = judge(replace(FASTER, gates=(gate,)))
    assert verdict.passed is passed and str(gate) == text and text in str(verdict)
    assert ("not every gate passed" in verdict.headline) is not passed


def test_what_rests_on_trust_is_said() -> None:
    verdict = judge(replace(FASTER, unverified=("memories.dram.bandwidth = 204.8 GB/s",)))
    assert "Rests on what nobody has verified: memories.dram.bandwidth = 204.8 GB/s." in str(verdict)


def test_impossible_figures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"interval \[0.1, 0.2\] does not contain its estimate 0.5"):
        Interval(value=0.5, low=0.1, high=0.2)
    with pytest.raises(ValueError, match=r"gate 'x' has neither at_least nor at_most"):
        Gate(name="x", value=1.0)
