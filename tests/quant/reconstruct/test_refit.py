"""Weights fitted to what arrives: what is real is followed, what is chance is not."""

import torch

from bitwright.quant.reconstruct.moments import Moments
from bitwright.quant.reconstruct.refit import refit, shift_of, sum_of

TERMS, ROWS = 6, 4


def halves(difference: torch.Tensor, columns: torch.Tensor) -> list[Moments]:
    """Samples of 25 positions in turn: `[ROWS, n]`, `[TERMS, n]`."""
    found = [Moments.empty(1, ROWS, TERMS) for _ in range(2)]
    pairs = zip(columns.split(25, 1), difference.split(25, 1), strict=True)
    for index, (x, d) in enumerate(pairs):
        found[index % 2].add(x[None], d[None], d[None])
    for half in found:
        half.flush()
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
    moments.add(columns[None], difference[None], difference[None])
    moments.flush()
    change, shift = torch.randn(1, ROWS, TERMS).double(), torch.randn(1, ROWS).double()
    left = difference - change[0].float() @ columns - shift[0].float()[:, None]
    expected = left.square().sum(1).double() / difference.square().sum()
    torch.testing.assert_close(moments.error(change, shift)[0], expected, rtol=1e-5, atol=0.0)


def test_without_any_error_nothing_changes() -> None:
    fit = refit(halves(torch.zeros(ROWS, 200), torch.randn(TERMS, 200)), bias=True)
    assert not fit.change.any()
