"""Where buffers find no addresses for the holes between them, room is kept free until they do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_reference import Reference
from programs import both, with_sram

from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph


def branches(widths: list[int], size: int) -> Graph:
    """Convolutions of unlike widths that are all joined at the end, so that they live together."""
    net = GraphBuilder()
    x = net.conv2d(net.input(1, 3, size, size), 4)
    parts = []
    for width in widths:
        x = net.conv2d(x, width)
        parts.append(net.conv2d(x, width, 1))
    return net.graph(net.call("cat", *parts, shape=(1, sum(widths), size, size), dim=1))


@given(widths=st.lists(st.integers(1, 24), min_size=2, max_size=7), size=st.integers(3, 9), sram=st.integers(700, 9000))
def test_every_buffer_gets_an_address_and_the_results_are_the_same(widths: list[int], size: int, sram: int) -> None:
    target = with_sram("ethos-u85-1024", sram)
    try:
        lowered, got, wanted = both(branches(widths, size), target, Reference)
    except InputError as error:
        # Only where the smallest tile of a single layer is too large.
        assert "split the largest layers" in str(error)
        with pytest.raises(InputError):
            lower(branches([max(widths)], size), target)
        return
    assert lowered.memory.peak_bytes["sram"] <= sram
    for ref in wanted:
        np.testing.assert_array_equal(got[ref], wanted[ref])
