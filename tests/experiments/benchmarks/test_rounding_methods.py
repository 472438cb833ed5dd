"""What the row `rounding_methods` says of logits whose noise is known."""

from __future__ import annotations

import numpy as np

from bitwright.experiments.benchmarks.rows.rounding_methods import METHODS, RUNGS, Case, found_in


def case_of(levels: dict[str, float]) -> Case:
    """All methods with the same noise, of these levels or 0.1."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(12, 5)).astype(np.float32)
    noise = rng.normal(size=(12, 5)).astype(np.float32)
    logits = {method: reference + noise * np.float32(levels.get(method, 0.1)) for method in METHODS}
    return Case(
        network="n", scheme="s", reference=reference, logits=logits, cpu_s=dict.fromkeys(METHODS, 1.0)
    )  # fmt: skip


def test_order_fails_where_a_dearer_rounding_is_worse() -> None:
    order, idle = found_in([case_of({"plain": 0.4, "gptq": 0.2, "adaround": 0.25})])
    assert (order.value, order.n, order.holds) == (1, len(RUNGS) - 1, False)
    assert idle.value == 1  # all others are at 0.1, below the 0.2 of gptq


def test_order_holds_where_nothing_is_worse() -> None:
    order, idle = found_in([case_of({"plain": 0.4})])
    assert (order.value, order.holds) == (0, True)
    assert idle.value == len(METHODS) - 2


def test_gains_are_those_of_the_noise() -> None:
    line = next(each for each in case_of({"brecq": 0.05}).table if each["method"] == "brecq")
    assert line["over gptq, dB"].startswith("6.02")  # 20 log10(0.1 / 0.05)
