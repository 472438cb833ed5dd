"""Sizes of random kernels: log-uniform, with a liking for those that networks have."""

from __future__ import annotations

import math
import random

from bitwright.hw_constraints.kernels.kernel import Shape

_SIDES = (1, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256)
_NARROW = 0.1  # of all tensors: fewer channels than any vector has lanes


class RandomSizes:
    """Draws numbers, pictures and rows of tokens.

    Args:
        choice: where chance comes from.
    """

    def __init__(self, choice: random.Random) -> None:
        self.random = choice

    def between(self, low: float, high: float) -> int:
        """An integer, log-uniform."""
        return round(math.exp(self.random.uniform(math.log(low), math.log(high))))

    def channels(self, low: int = 8, high: int = 1280) -> int:
        """Three of four are multiples of 8, as most networks' are; a tenth of pictures has fewer than 16."""
        if low == 8 and self.random.random() < _NARROW:
            return self.random.randint(2, 15)
        count = self.between(low, high)
        return max(8, round(count / 8) * 8) if self.random.random() < 0.75 else count

    def side(self) -> int:
        """Height or width."""
        return self.random.choice(_SIDES) if self.random.random() < 0.8 else self.between(2, 300)

    def picture(self) -> Shape:
        """[batch, channels, height, width]; most are square."""
        height = self.side()
        width = height if self.random.random() < 0.85 else self.side()
        return (1, self.channels(), height, width)

    def tokens(self) -> Shape:
        """[batch, tokens, width]."""
        return (1, self.between(16, 400), self.channels(32, 1024))

    def tensor(self) -> Shape:
        """A picture or tokens."""
        return self.picture() if self.random.random() < 0.7 else self.tokens()
