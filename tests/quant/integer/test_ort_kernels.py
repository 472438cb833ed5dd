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
        # Its table is filled by an approximation of exp, whose last bits turn a tie over once in many tables.
        distance = np.abs(found.astype(np.int64) - expected)
        assert distance.max(initial=0) <= (1 if name == "QLinearSigmoid" else 0)

    check()
