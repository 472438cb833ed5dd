"""The integer reference is ONNX Runtime's arithmetic, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.experiments.benchmarks.ort_kernels import OPERATORS

CASES = 200  # each is a session of its own; the benchmark `integer_reference` runs 2,000


@pytest.mark.parametrize("name", OPERATORS)
def test_codes_are_those_of_onnx_runtime(name: str) -> None:
    @settings(max_examples=CASES, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        found, expected = OPERATORS[name](seed)
        np.testing.assert_array_equal(found, expected)

    check()
