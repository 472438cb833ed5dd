"""Rotations inside attention (QuaRot: Ashkboos et al. 2024, arXiv:2404.00456, section 4): outliers spread over a head.

With an orthogonal R for each head nothing changes when

    q k^T = (q R) (k R)^T,          (softmax(…) v) W_o^T = (softmax(…) v R) (W_o R)^T

and R goes into the weights that make q, k and v and into the one that reads the heads: no operator more. R is a
Hadamard matrix with random signs where a head's width is a power of two (each entry is as large, so one loud channel
becomes many quiet ones), else a random orthogonal one. Networks that rotate queries themselves (RoPE) between layer and
product are left alone, since what lies between is then no mere move. The stream between blocks can be rotated likewise
only where its norms have no weights of their own; this does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.preparations.heads import HeadPair, find_head_pairs
from bitwright.quant.scheme import QuantScheme

SEED = 0


def random_rotation(size: int, generator: torch.Generator) -> torch.Tensor:
    """An orthogonal matrix, float64 `[size, size]`: `H diag(±1) / sqrt(size)`, or Q of a Gaussian matrix."""
    if size & (size - 1):
        gaussian = torch.randn(size, size, generator=generator, dtype=torch.float64)
        orthogonal: torch.Tensor = torch.linalg.qr(gaussian).Q
        return orthogonal
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    while len(hadamard) < size:  # Sylvester's construction
        hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), hadamard)
    signs = torch.randint(2, (size,), generator=generator) * 2.0 - 1.0
    hadamard *= signs / size**0.5
    return hadamard


class Rotate:
    """Needs no data."""

    name = "rotate"
    samples = 1

    @torch.no_grad()
    def prepare(self, captured: CapturedModel, scheme: QuantScheme, samples: Sequence[Arguments]) -> CapturedModel:
        """See the module."""
        generator = torch.Generator().manual_seed(SEED)
        values = dict(captured.values)
        for pair in find_head_pairs(captured):
            for first, second in pair.blocks:
                rotation = random_rotation(len(first), generator)
                turn(values, pair, first, second, rotation)
        return replace(captured, values=values)


def turn(
    values: dict[str, torch.Tensor],
    pair: HeadPair,
    first: tuple[int, ...],
    second: tuple[int, ...],
    rotation: torch.Tensor,
) -> None:
    """Rotates a head in both layers, in place.

    Rows of a weight `[out, in]` and its bias make channels: `y R = (R^T W x)`; columns read them: `W R`.

    Args:
        values: the network's, by name; the four of the pair are replaced.
        pair: the layers.
        first: the head's channels in the first of them.
        second: in the second.
        rotation: R, orthogonal, float64 `[D, D]`.
    """
    for names, channels, columns in ((pair.first, first, False), (pair.second, second, pair.reads)):
        place = list(channels)
        for name in names:
            turned = values[name].clone()
            if columns:
                turned[:, place] = (turned[:, place].double() @ rotation).to(turned.dtype)
            else:
                turned[place] = (rotation.T @ turned[place].double()).to(turned.dtype)
            values[name] = turned


PREPARATION = Rotate()
