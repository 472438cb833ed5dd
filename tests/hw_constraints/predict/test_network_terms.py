from __future__ import annotations

import numpy as np
import pytest

from bitwright.hw_constraints.kernels import Family, Kernel
from bitwright.hw_constraints.predict.network_terms import OVERHEADS, terms_of

MB = 1_000_000


def _linear(weight_mb: float) -> Kernel:
    rows = round(weight_mb * MB / 4 / 500)
    return Kernel(
        family=Family.LINEAR,
        op="Gemm",
        format="float32",
        inputs=((1, rows),),
        outputs=((1, 500),),
        weight=(rows, 500),
    )


def _displaced(*kernels: Kernel) -> float:
    ones = np.ones(len(kernels))
    return float(terms_of(kernels, ones, 0 * ones, [], []).values[OVERHEADS.index("bytes of displaced weights")])


def test_what_fits_the_cache_is_not_displaced() -> None:
    assert _displaced(*[_linear(0.5)] * 7) == 0.0


def test_many_small_weights_are_all_displaced() -> None:
    assert _displaced(*[_linear(0.5)] * 60) == pytest.approx(30 * MB, rel=1e-3)


def test_half_way_between_kept_and_lost_half_of_them_are() -> None:
    assert _displaced(*[_linear(0.5)] * 20) == pytest.approx(5 * MB, rel=0.02)


def test_a_weight_that_was_measured_from_memory_is_not_paid_for_twice() -> None:
    assert _displaced(_linear(40.0)) == 0.0
    assert _displaced(_linear(40.0), *[_linear(0.5)] * 20) == pytest.approx(10 * MB, rel=1e-3)
