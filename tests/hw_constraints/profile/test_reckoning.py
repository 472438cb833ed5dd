"""The arithmetic of a profile, on figures made up for it."""

import itertools
import json
import math

import numpy as np
import pytest

from bitwright.hw_constraints.backends import ExecutedNode, KernelTime
from bitwright.hw_constraints.cost.estimate import LayerEstimate
from bitwright.hw_constraints.profile.conversions import by_type, conversions_before
from bitwright.hw_constraints.profile.disagreement import Scene, remark
from bitwright.hw_constraints.profile.expected import ExpectedOp, meet, spread
from bitwright.hw_constraints.profile.report import LayerTime, NetworkProfile
from bitwright.hw_constraints.profile.slices import Slices
from bitwright.hw_constraints.profile.tails import quantile
from bitwright.hw_constraints.profile.timeline import perfetto
from bitwright.hw_constraints.proof import State


def answer(walls, kernels, profiler_us=0.0):
    facts = {name: {"op": "Conv", "provider": "cpu", "precision": "int8"} for name in kernels}
    return {
        "wall_us": walls, "kernels": kernels, "facts": facts, "executed": [], "settings": {}, "copy_gb_s": 10.0,
        "profiler_us": profiler_us,
    }  # fmt: skip


def times(slices):
    return {kernel.name: kernel.time_us for kernel in slices.kernels}


def test_a_machine_that_slows_down_changes_no_share():
    """In each slice the kernels take 60 % and 30 % of the run; the machine gets slower from slice to slice."""
    walls = [100.0, 110.0, 120.0, 150.0, 190.0, 230.0, 300.5]
    slices = Slices(answer(walls, {"a": [0.6 * w for w in walls], "b": [0.3 * w for w in walls]}))
    assert slices.wall_us == 150
    assert times(slices) == pytest.approx({"a": 90, "b": 45})
    assert slices.overhead_us == pytest.approx(15)
    assert slices.notes == ()


def test_what_the_profiler_adds_is_taken_off_each_kernel():
    slices = Slices(answer([100.0] * 6, {"large": [52.0] * 6, "small": [3.0] * 6, "none": [1.0] * 6}, profiler_us=2.0))
    assert times(slices) == pytest.approx({"large": 50, "small": 1, "none": 0})
    assert slices.overhead_us == pytest.approx(49)
    assert slices.notes == (
        "2.0 µs that the profiler adds to each kernel are taken off",
        "the profiler counts whole microseconds: half of one is uncertain in each kernel",
    )


def test_kernels_that_exceed_the_run_are_cut_by_the_same_amount_each():
    """100 + 4 x 10 = 140 in a run of 110: six off each of five kernels; scaling would have taken 21 off the largest."""
    kernels = {"large": [100.0] * 6, **{f"small{i}": [10.0] * 6 for i in range(4)}}
    slices = Slices(answer([110.0] * 6, kernels))
    assert times(slices) == pytest.approx({"large": 94, **{f"small{i}": 4 for i in range(4)}})
    assert slices.overhead_us == pytest.approx(0, abs=1e-6)
    assert slices.profiler_us == pytest.approx(6)
    assert slices.notes[0].endswith("so that they add up to the run: the runtime's own share is not known")


def test_intervals_need_six_slices():
    assert Slices(answer([100.0] * 5, {"a": [60.0] * 5})).interval(["a"], 60.0) == (None, None)
    low, high = Slices(answer([100.0] * 8, {"a": [59.0, 60.0, 61.0, 60.0, 58.0, 62.0, 60.0, 61.0]})).interval(["a"], 60)
    assert 58 <= low < 60 < high <= 62


def test_conversions_count_for_the_layer_that_waits_for_them():
    executed = [
        ExecutedNode(name="q", op="QuantizeLinear", inputs=("x",), outputs=("xq",)),
        ExecutedNode(name="reorder", op="Reorder", inputs=("xq",), outputs=("xr",)),
        ExecutedNode(name="conv", op="Conv", inputs=("xr",), outputs=("y",)),
        ExecutedNode(name="dq", op="DequantizeLinear", inputs=("y",), outputs=("result",)),
    ]
    kernels = [
        KernelTime(name=each.name, op=each.op, time_us=us, provider="", precision="int8")
        for each, us in zip(executed, (1.0, 2.0, 50.0, 4.0), strict=True)
    ]
    assert conversions_before(executed, kernels, {"conv": 7}) == {7: 3.0}
    found = by_type(kernel for kernel in kernels if kernel.name != "conv")
    assert [(each.op, each.count, each.us) for each in found] == [
        ("DequantizeLinear", 1, 4.0), ("Reorder", 1, 2.0), ("QuantizeLinear", 1, 1.0),
    ]  # fmt: skip


def test_both_sides_meet_where_their_cuts_do():
    """Measured a | bc | d, expected ab | c | d: a, b and c are one group, d is another."""
    measured = [frozenset("a"), frozenset("bc"), frozenset("d")]
    ops = [ExpectedOp(us=us, keys=frozenset(keys)) for us, keys in ((3.0, "ab"), (1.0, "c"), (5.0, "d"), (9.0, "z"))]
    groups = meet(measured, ops)
    assert {(group.measured, group.us) for group in groups} == {((0, 1), 4.0), ((2,), 5.0)}
    assert spread(groups, {0: 30.0, 1: 10.0, 2: 7.0}) == {0: 3.0, 1: 1.0, 2: 5.0}


def test_groups_are_those_of_brute_force():
    """Against merging sets until nothing changes, on random cuts of twelve layers."""
    random = np.random.default_rng(0)

    def cut():
        ends = sorted({0, 12, *random.integers(1, 12, 4)})
        return [frozenset(map(str, range(*pair))) for pair in itertools.pairwise(ends)]

    for _ in range(200):
        measured, expected = cut(), cut()
        found = meet(measured, [ExpectedOp(us=1.0, keys=keys) for keys in expected])
        groups = {frozenset().union(*(measured[at] for at in group.measured)) for group in found}
        slow = [set(each) for each in measured]
        for keys in expected:
            touched = [each for each in slow if each & keys]
            slow = [each for each in slow if not each & keys] + [set().union(*touched)]
        assert groups == {frozenset(each) for each in slow}


def test_a_group_without_a_figure_has_none():
    groups = meet(
        [frozenset("ab")], [ExpectedOp(us=None, keys=frozenset("a")), ExpectedOp(us=1.0, keys=frozenset("b"))]
    )
    assert spread(groups, {0: 1.0}) == {}


def layer(**changes):
    fields = {"name": "conv", "module": "stem.conv", "source": "net.py:3", "members": (), "op": "Conv",
              "state": State.INT8, "kernel": "QLinearConv", "us": 100.0, "macs": 10**6, "bytes": 10**5}  # fmt: skip
    return LayerTime(**{**fields, **changes})


SCENE = Scene(scale=1.0, start_us=1.0, best_rate={State.INT8: 25_000.0, State.FLOAT: 5_000.0}, copy_gb_s=10.0)


@pytest.mark.parametrize("expected", [75.1, 100.0, 133.0])
def test_up_to_a_quarter_is_no_disagreement(expected):
    assert remark(layer(), expected, (), SCENE, "") == ""


@pytest.mark.parametrize(
    ("changes", "expected", "why", "says"),
    [
        ({"state": State.FLOAT}, 50.0, "no Q/DQ behind", "2.0x slower than modelled: runs in float (no Q/DQ behind)"),
        ({"conversions_us": 20.0}, 50.0, "", "another 20.0 µs of conversions right before it"),
        ({"us": 1.5}, 0.5, "", "3.0x slower than modelled: too small: between two kernels the runtime spends 1.0 µs"),
        # 800,000 bytes in 100 µs are 8 GB/s.
        ({"bytes": 800_000}, 50.0, "", "memory bound: moves 0.80 MB at 8.0 GB/s, a plain copy 10.0"),
        # 10^6 MACs in 100 µs are 10 GMAC/s.
        ({}, 50.0, "", "its kernel (QLinearConv) reaches 10.0 GMAC/s, the best of this network 25.0"),
        ({"macs": 0}, 50.0, "", "no fact of this profile says why"),
        ({}, 300.0, "", "3.0x faster than modelled: no fact of this profile says why"),
        ({}, 0.0, "", "modelled as free, takes 100.0 µs here"),
        ({"us": 0.0}, 7.0, "", "modelled as 7 µs; the runtime needs no measurable time for it"),
    ],
)
def test_a_remark_names_facts(changes, expected, why, says):
    assert says in remark(layer(**changes), expected, (), SCENE, why)


def test_a_remark_says_what_the_model_takes_it_for():
    estimate = LayerEstimate(name="conv", engine="e", us=1.0, bound_by="dram")
    assert remark(layer(), 300.0, (estimate,), SCENE, "").endswith("than modelled: modelled as bound by dram")


def test_on_another_device_shares_are_compared():
    scene = Scene(scale=50.0, start_us=0.0, best_rate={}, copy_gb_s=None)
    assert remark(layer(), 2.0, (), scene, "") == ""
    assert "2.0x slower than modelled, by share of the whole" in remark(layer(), 1.0, (), scene, "")


def test_quantiles_hold_the_true_one_as_often_as_they_say():
    """p99 of 2,000 exponential samples is ln 100; 95 % intervals hold it in 400 repetitions about 380 times."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        found = quantile(sorted(random.exponential(size=2000)), 0.99)
        held += found.low <= math.log(100) <= found.high
    assert 370 <= held <= 398
    assert quantile([1.0, 2.0, 3.0], 0.5).us == 2.0
    assert math.isinf(quantile(list(range(50)), 0.99).high)


def profile(**changes):
    fields = {"file": "net.onnx", "runtime": "onnxruntime", "version": "1", "settings": {}, "machine": None,
              "device": "", "threads": 1, "origin": "measured", "wall_us": 170.0, "wall_low": None, "wall_high": None,
              "layers": (layer(conversions_us=20.0), layer(name="head", module="head", us=30.0)),
              "conversions": by_type([KernelTime(name="q", op="Q", time_us=25.0, provider="", precision="")]),
              "overhead_us": 15.0, "profiler_us": 0.0, "slices": 6}  # fmt: skip
    return NetworkProfile(**{**fields, **changes})


def test_the_timeline_is_as_long_as_the_run_and_without_overlap():
    events = [each for each in perfetto(profile())["traceEvents"] if each["ph"] == "X"]
    assert sum(each["dur"] for each in events) == pytest.approx(170)
    for before, after in itertools.pairwise(events):
        assert after["ts"] == pytest.approx(before["ts"] + before["dur"])
    assert events[1]["args"]["line"] == "net.py:3"
    assert json.loads(json.dumps(perfetto(profile())))["displayTimeUnit"] == "ns"


def test_modules_hold_all_that_is_below_them():
    assert profile().modules == {"": 130.0, "stem": 100.0, "stem.conv": 100.0, "head": 30.0}
    assert json.dumps(profile().to_json())
