"""Weights fitted to what arrives: what is real is followed, what is chance is not."""

import pytest
import torch

from bitwright.quant.reconstruct.gathering import Gathering
from bitwright.quant.reconstruct.moments import Moments
from bitwright.quant.reconstruct.refit import refit, shift_of, sum_of

TERMS, ROWS = 6, 4


def halves(difference: torch.Tensor, columns: torch.Tensor) -> list[Moments]:
    """Samples of 25 positions in turn: `[ROWS, n]`, `[TERMS, n]`."""
    found = [Moments.empty(1, ROWS, TERMS) for _ in range(2)]
    pairs = zip(columns.split(25, 1), difference.split(25, 1), strict=True)
    for index, (x, d) in enumerate(pairs):
        found[index % 2].add(x[None].clone(), d[None].clone(), d[None])
    return found


def test_a_linear_error_and_a_shift_are_undone() -> None:
    columns, change = torch.randn(TERMS, 1000) + 1.0, torch.randn(ROWS, TERMS)
    seen = halves(change @ columns + 3.0 + 1e-3 * torch.randn(ROWS, 1000), columns)
    fit = refit(seen, bias=True)
    torch.testing.assert_close(fit.change[0], change.double(), atol=5e-3, rtol=0.0)
    torch.testing.assert_close(
        shift_of(sum_of(seen), fit.change, bias=True)[0], torch.full((ROWS,), 3.0).double(), atol=1e-2, rtol=0.0
    )
    assert fit.follows.all()


def test_chance_is_not_followed() -> None:
    fit = refit(halves(torch.randn(ROWS, 50), torch.randn(TERMS, 50)), bias=True)
    unbiased = refit(halves(torch.randn(ROWS, 1000), torch.randn(TERMS, 1000)), bias=False)
    assert fit.change.abs().max() < 0.2  # plain least squares on 50 positions: 0.3 and more
    assert unbiased.change.abs().max() < 0.1


def test_one_sample_that_is_far_louder_does_not_decide() -> None:
    columns, change = torch.randn(TERMS, 1000), torch.randn(ROWS, TERMS)
    difference = change @ columns + 0.1 * torch.randn(ROWS, 1000)
    difference[:, 100:125] = 100.0
    fit = refit(halves(difference, columns), bias=True)
    torch.testing.assert_close(fit.change[0], change.double(), atol=0.1, rtol=0.0)


def test_the_error_is_that_of_the_data() -> None:
    columns, difference = torch.randn(TERMS, 25), torch.randn(ROWS, 25)
    moments = Moments.empty(1, ROWS, TERMS)
    moments.add(columns[None].clone(), difference[None].clone(), difference[None])
    change, shift = torch.randn(1, ROWS, TERMS).double(), torch.randn(1, ROWS).double()
    left = difference - change[0].float() @ columns - shift[0].float()[:, None]
    expected = left.square().sum(1).double() / difference.square().sum()
    torch.testing.assert_close(moments.error(change, shift)[0], expected, rtol=1e-5, atol=0.0)


def test_samples_side_by_side_are_samples_one_by_one() -> None:
    columns, difference, truth = torch.randn(2, TERMS, 60), torch.randn(2, ROWS, 60), torch.randn(2, ROWS, 60)
    difference[:, :, 30:35], truth[:, :, 30:35] = 0.0, 0.0  # silent
    difference[:, :, :10] *= 100.0
    sizes = [10, 20, 5, 25]
    together, alone = Moments.empty(2, ROWS, TERMS), Moments.empty(2, ROWS, TERMS)
    shares = together.add(columns.clone(), difference.clone(), truth, sizes)
    parts = zip(*(each.split(sizes, 2) for each in (columns, difference, truth)), strict=True)
    assert shares == pytest.approx([share for part in parts for share in alone.add(*part)], rel=1e-5)
    assert shares[2] == 1.0
    for name in ("columns", "difference", "square", "hessian", "cross"):
        torch.testing.assert_close(getattr(together, name), getattr(alone, name), rtol=1e-4, atol=1e-5)
    assert together.weight == pytest.approx(alone.weight)


@pytest.mark.parametrize("bounds", [(-torch.inf, torch.inf), (0.0, 1.0)])
def test_gathered_samples_leave_what_the_activation_shows(bounds: tuple[float, float]) -> None:
    """Of 300 positions a sample four are multiplied together; the last ones when there are no more."""
    weight, bias, shares = torch.randn(1, ROWS, TERMS), torch.randn(1, ROWS), dict[int, float]()
    gathered, expected = Moments.empty(1, ROWS, TERMS), Moments.empty(1, ROWS, TERMS)
    gathering = Gathering(weight, bias, bounds, gathered, shares.__setitem__)
    for sample in range(1, 10, 2):
        columns, truth = torch.randn(1, TERMS, 300), torch.randn(1, ROWS, 300)
        gathering.add(sample, columns, truth)
        result = (weight @ columns + bias[:, :, None]).clamp(*bounds)
        (share,) = expected.add(columns.clone(), truth.clamp(*bounds) - result, truth.clamp(*bounds))
        assert (sample in shares) == (sample == 7)
        if sample == 9:
            gathering.flush()
            assert shares[sample] == pytest.approx(share, rel=1e-4)
    assert sorted(shares) == [1, 3, 5, 7, 9]
    torch.testing.assert_close(gathered.cross, expected.cross, rtol=1e-4, atol=1e-5)


def test_without_any_error_nothing_changes() -> None:
    fit = refit(halves(torch.zeros(ROWS, 200), torch.randn(TERMS, 200)), bias=True)
    assert not fit.change.any()
