"""What a layer's inputs and the error of its results have in common, streamed: memory does not grow with the data.

Of the columns x that the quantized network feeds a layer, and of the difference d that is missing in its result,

    d = f(W x_float + b) - f(W x + b)         f: the activation behind the layer

(zero where the activation hides it), the moments `E[x x^T]`, `E[d x^T]` and the means are kept. Each sample counts by
`1 / sum d^2`: all samples then have a like say in the sum of logarithms `sum log |d|^2`, and the one picture in
hundreds that drives a channel ten times as far as all others does not decide for them. (On MobileNetV2 a fit by plain
squares loses 5 dB to three such pictures.) Samples go into two halves in turn, so that what one half suggests can be
tried on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

HALVES = 2
WIDE = 2048  # terms; a Hessian of so many has 32 MB in float64, one of ResNet-50's 4,608 would have 170
_EPS = torch.finfo(torch.float32).eps
_SILENCE = 1e-30


@dataclass
class Moments:
    """Weighted sums over positions, float64; the products float32, which is what they are computed in.

    Attributes:
        weight: of all positions.
        columns: `sum x`, `[G, K]`.
        difference: `sum d`, `[G, R]`.
        square: `sum d^2`, `[G, R]`.
        hessian: `sum x x^T`, `[G, K, K]`; half the Hessian of the squared error.
        cross: `sum d x^T`, `[G, R, K]`.
        products: whether the last two are summed.
    """

    weight: float
    columns: torch.Tensor
    difference: torch.Tensor
    square: torch.Tensor
    hessian: torch.Tensor
    cross: torch.Tensor
    products: bool

    @classmethod
    def empty(cls, groups: int, rows: int, terms: int, *, products: bool = True) -> Moments:
        """Of no data; without `products` the last two stay zero and cost nothing."""

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        def product(*shape: int) -> torch.Tensor:
            return torch.zeros(shape) if products else torch.zeros(1).expand(shape)

        return cls(
            0.0,
            zeros(groups, terms),
            zeros(groups, rows),
            zeros(groups, rows),
            product(groups, terms, terms),
            product(groups, rows, terms),
            products,
        )

    def add(
        self, columns: torch.Tensor, difference: torch.Tensor, truth: torch.Tensor, sizes: Sequence[int] = ()
    ) -> list[float]:
        """Samples side by side.

        Args:
            columns: `[G, K, n]`; used up.
            difference: what their result lacks, `[G, R, n]`; used up.
            truth: what it should be, likewise.
            sizes: positions of each sample, in turn; of one sample when not given.

        Returns:
            What each position of a sample counts, one number a sample.
        """
        counts = torch.tensor(sizes or [columns.shape[2]])
        owner = torch.arange(len(counts)).repeat_interleave(counts)
        square = difference.square()

        def of_samples(positions: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(counts)).index_add_(0, owner, positions.sum((0, 1)))

        # Below 70 dB samples are alike: what differs there is float32's own rounding. Silence counts as it is.
        noise = torch.maximum(of_samples(square), _EPS * of_samples(truth.square()))
        shares = torch.where(noise > _SILENCE, 1.0 / noise, 1.0)
        each = shares[owner]
        self.weight += float(each.double().sum())
        self.columns += columns @ each
        self.difference += difference @ each
        self.square += square @ each
        if self.products:
            root = each.sqrt()
            transposed = columns.mul_(root).transpose(1, 2)
            self.hessian.baddbmm_(columns, transposed)  # in place: a wide layer's product has a hundred megabytes
            self.cross.baddbmm_(difference.mul_(root), transposed)
        return shares.tolist()

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.weight + other.weight,
            self.columns + other.columns,
            self.difference + other.difference,
            self.square + other.square,
            self.hessian + other.hessian if self.products else self.hessian,
            self.cross + other.cross if self.products else self.cross,
            self.products,
        )

    def of_first_order(self) -> Moments:
        """The same without products, which may have hundreds of megabytes."""
        groups, rows, terms = self.cross.shape
        none = torch.zeros(1)
        hessian, cross = none.expand(groups, terms, terms), none.expand(groups, rows, terms)
        return Moments(self.weight, self.columns, self.difference, self.square, hessian, cross, products=False)

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`E[x]`, `[G, K]`, and `E[d]`, `[G, R]`."""
        return self.columns / self.weight, self.difference / self.weight

    def add_(self, other: Moments) -> None:
        """Takes in those of other samples."""
        self.weight += other.weight
        for own, more in (
            (self.columns, other.columns),
            (self.difference, other.difference),
            (self.square, other.square),
            *(((self.hessian, other.hessian), (self.cross, other.cross)) if self.products else ()),
        ):
            own += more

    def centred(
        self, *, bias: bool, dtype: torch.dtype | None = None, keep: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`E[x x^T]` and `E[d x^T]`; of what remains when the means are left to a bias, where there is one.

        As float64 unless told otherwise, or float32 where that would take hundreds of megabytes. Without `keep` the
        products may be used up.
        """
        kind = dtype or (torch.float64 if self.columns.shape[1] <= WIDE else torch.float32)
        hessian, cross = (part.to(kind, copy=keep).div_(self.weight) for part in (self.hessian, self.cross))
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        lost = _EPS * diagonal.sum(1)  # what float32 products cannot tell from zero
        if bias:
            x, d = (mean.to(kind) for mean in self.means())
            hessian.baddbmm_(x[:, :, None], x[:, None, :], alpha=-1.0)
            cross.baddbmm_(d[:, :, None], x[:, None, :], alpha=-1.0)
        diagonal += lost[:, None]
        return hessian, cross

    def error(self, change: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """`sum (d - change x - shift)^2` of each row, `[G, R]`: what a changed weight and bias leave.

        Without products only a bias can be tried.
        """
        if not self.products:
            return self.square - 2 * shift * self.difference + shift.square() * self.weight
        explained = (change * self.cross).sum(2) + shift * self.difference
        mixed = ((change.float() @ self.hessian) * change).sum(2) + 2 * shift * (change * self.columns[:, None]).sum(2)
        return self.square - 2 * explained + mixed + shift.square() * self.weight


def factored(matrix: torch.Tensor, *, upper: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Cholesky factors `[G, K, K]`, and which of them exist, `[G]`: the others are 1.

    A matrix of moments is not positive definite in its last digits where a layer's inputs never vary. The factors take
    the place of the matrix, which is used up: that of a wide layer has a hundred megabytes.
    """
    place = matrix.mT  # symmetric, and LAPACK works on columns
    failed = torch.empty(matrix.shape[:-2], dtype=torch.int32)
    torch.linalg.cholesky_ex(place, upper=upper, out=(place, failed))
    exists = failed == 0
    if not exists.all():
        place[~exists] = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    return place, exists
