"""With gemmlowp's roundings the integer reference is LiteRT's reference arithmetic, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ai_edge_litert", reason="package ai-edge-litert is not installed")

from bitwright.experiments.benchmarks.litert_kernels import OPERATORS

CASES = 100  # each is an interpreter of its own; the benchmark `integer_reference` runs 2,000


@pytest.mark.parametrize("name", OPERATORS)
def test_codes_are_those_of_litert(name: str) -> None:
    @settings(max_examples=CASES, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        found, expected = OPERATORS[name](seed)
        np.testing.assert_array_equal(found, expected)

    check()
