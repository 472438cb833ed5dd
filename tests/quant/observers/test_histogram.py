import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.quant.observers.histogram import BINS, SAMPLE, Histogram


def counted(*batches: torch.Tensor) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.update(batch)
    return histogram


def brute_force(values: torch.Tensor, limit: float) -> torch.Tensor:
    edges = torch.linspace(-limit, limit, BINS + 1, dtype=torch.float64)
    bins = torch.searchsorted(edges, values.double(), right=True) - 1
    return torch.bincount(bins.clamp(0, BINS - 1), minlength=BINS).double()


def test_counts_are_those_of_a_search_through_the_edges() -> None:
    # Multiples of 2^-12 below 2: exact in the float32 sum that finds the bin.
    values = torch.randint(-8000, 8000, (6000,)) * 2.0**-12
    histogram = counted(values)
    assert histogram.limit == 2.0
    assert torch.equal(histogram.counts, brute_force(values, 2.0))


@given(st.lists(st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=50), min_size=1, max_size=6))
def test_growing_the_range_merges_bins_without_loss(batches: list[list[int]]) -> None:
    """However the data is cut and ordered, the counts are those of one pass with the final range known."""
    tensors = [torch.tensor(batch) * 2.0**-10 for batch in batches]
    histogram = counted(*tensors)
    together = torch.cat(tensors)
    backwards = counted(*reversed(tensors))
    assert histogram.limit == backwards.limit
    assert torch.equal(histogram.counts, backwards.counts)
    assert histogram.counts.sum() == together.numel()
    assert (histogram.low, histogram.high) == (float(together.min()), float(together.max()))
    if histogram.limit:
        # A negative value on an edge of the finer bins stays right of it when bins merge: same as one pass.
        assert torch.equal(histogram.counts, brute_force(together, histogram.limit))


def test_the_limit_is_the_next_larger_power_of_two() -> None:
    assert counted(torch.tensor([0.0])).limit == 0.0
    assert counted(torch.tensor([0.0, -0.75])).limit == 1.0
    assert counted(torch.tensor([1.0])).limit == 2.0
    assert counted(torch.tensor([0.5]), torch.tensor([3.9])).limit == 4.0


def test_values_of_every_size_are_counted() -> None:
    histogram = counted(torch.tensor([1e-42]), torch.tensor([3e38]), torch.tensor([-1e-45]))
    assert histogram.counts.sum() == 3
    assert math.isfinite(histogram.limit)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 64, 128, 128), (2, 96, 64, 64), (8, 32, 56, 56)])
def test_the_sample_reaches_every_channel_row_and_column(
    shape: tuple[int, int, int, int], layout: torch.memory_format
) -> None:
    """A stride of 128 through 64 channels that lie last would only ever see the first of them."""
    for dim in range(1, 4):
        ramp = torch.arange(shape[dim]).float()
        view = [1] * 4
        view[dim] = -1
        values = (ramp.reshape(view) + 1).expand(shape).contiguous(memory_format=layout)
        histogram = counted(values)
        assert int((histogram.counts > 0).sum()) == shape[dim]
        seen = histogram.counts[histogram.counts > 0]
        assert seen.max() - seen.min() <= max(3, 0.1 * float(seen.mean()))


def test_the_sample_is_bounded_but_extremes_are_not_sampled() -> None:
    values = torch.rand(1, 64, 100, 100)
    values[0, 3, 7, 11], values[0, 60, 1, 2] = 77.0, -33.0
    histogram = counted(values)
    assert SAMPLE / 4 < histogram.counts.sum() <= 2 * SAMPLE
    assert (histogram.low, histogram.high) == (-33.0, 77.0)


def test_small_tensors_are_counted_whole() -> None:
    assert counted(torch.rand(1, 10, 20, 20)).counts.sum() == 4000


def test_permuted_and_sliced_tensors_are_counted() -> None:
    values = torch.arange(24.0).reshape(2, 3, 4)
    for view in (values.permute(2, 0, 1), values[:, ::2], values.expand(5, 2, 3, 4), values[0, 0, 0]):
        histogram = counted(view)
        assert histogram.counts.sum() == view.numel()
        assert histogram.high == float(view.max())
