"""Other people's table as we read it, and that predictions are judged on what they have not seen."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.experiments.benchmarks.latency.once_for_all import RESOLUTIONS, Block, published
from bitwright.experiments.benchmarks.rows import published_tables
from bitwright.hw_constraints.kernels import Family


def test_the_excerpt_is_the_published_files_blocks() -> None:
    blocks = published()
    assert len({block.name for block in blocks}) == len(blocks) == 273
    for resolution in RESOLUTIONS:
        here = [block for block in blocks if block.resolution == resolution]
        assert len(here) == 91
        assert {resolution % block.side for block in here} == {0}
    by_size: dict[tuple[int, ...], dict[int, float]] = {}
    for each in blocks:
        key = (each.side, each.channels_in, each.channels_out, each.expanded, each.stride)
        by_size.setdefault(key, {})[each.kernel] = each.ms
    for times in by_size.values():  # a larger kernel takes longer: a line out of place would show
        assert [times[kernel] for kernel in sorted(times)] == sorted(times.values())
    # expanded_conv-input:7x7x192-output:7x7x192-expand:1152-kernel:5-stride:1-idskip:1-se:1-hs:1: mean 2.220072
    (line,) = [b for b in blocks if (b.resolution, b.channels_in, b.expanded, b.kernel) == (224, 192, 1152, 5)]
    assert line.ms == 2.2201 and (line.skip, line.squeeze_excite, line.hard_swish) == (1, 1, 1)


def test_a_block_is_the_kernels_that_its_line_names() -> None:
    block = Block(resolution=224, side=14, channels_in=96, channels_out=136, expanded=288, kernel=5, stride=1, skip=0,
                  squeeze_excite=1, hard_swish=1, ms=1.2)  # fmt: skip
    graph = block.graph()
    up, deep, down = 14 * 14 * 96 * 288, 14 * 14 * 288 * 25, 14 * 14 * 288 * 136
    assert sum(map(graph.macs, graph.nodes)) == up + deep + down + 2 * 288 * 72
    families = [placed.kernel.family for placed in block.split("onnxruntime").kernels]
    assert families.count(Family.DEPTHWISE) == 1 and families.count(Family.POINTWISE) == 4
    assert block.measured("onnxruntime").us == pytest.approx(1200)


def test_a_process_is_judged_on_blocks_that_it_has_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[str], set[str]]] = []

    def by_process(first: list[Block], second: list[Block]) -> np.ndarray:
        seen.append(({each.name for each in first}, {each.name for each in second}))
        return np.zeros(len(second))

    monkeypatch.setattr(published_tables, "_by_process", by_process)
    blocks = published()
    assert len(published_tables._trained(blocks)) == len(blocks)
    assert len(published_tables._few(blocks)) == len(blocks) - published_tables.SAMPLES
    assert all(not first & second and len(first | second) == len(blocks) for first, second in seen)
