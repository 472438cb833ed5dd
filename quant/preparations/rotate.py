"""Rotations: outliers spread over a head or a stream (QuaRot: Ashkboos et al. 2024, arXiv:2404.00456, section 4).

With an orthogonal R for each head of attention nothing changes when

    q k^T = (q R) (k R)^T,          (softmax(…) v) W_o^T = (softmax(…) v R) (W_o R)^T

and R goes into the weights that make q, k and v and into the one that reads the heads: no operator more. A stream that
is sums of layers alone, such as MobileNetV2's bottlenecks, is turned as a whole (`streams`). R is a Hadamard matrix
with random signs where its size is a power of two (each entry is as large, so one loud channel becomes many quiet
ones), else a random orthogonal one. What lies between layer and product must be a mere move: queries that are rotated
by place (RoPE) or normalized stay, and so do streams that norms or activations read; `left_alone` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.preparations.heads import HeadPair, find_head_pairs, heads_left_alone
from bitwright.quant.preparations.streams import Stream, find_streams, streams_left_alone
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
        for stream in find_streams(captured):
            if not stream.why_not:
                turn_stream(values, stream, random_rotation(stream.size, generator))
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


def turn_stream(values: dict[str, torch.Tensor], stream: Stream, rotation: torch.Tensor) -> None:
    """Rotates a stream in all layers that make and read it, in place.

    Args:
        values: the network's, by name; those of the layers are replaced.
        stream: one that can be rotated.
        rotation: R, orthogonal, float64 `[size, size]`.
    """
    for name in (name for own in stream.makers for name in own):
        rows = values[name].double()
        values[name] = torch.tensordot(rotation.T, rows, dims=1).to(values[name].dtype)
    for name in stream.readers:
        columns = values[name].double().movedim(1, -1)
        values[name] = (columns @ rotation).movedim(-1, 1).to(values[name].dtype).contiguous()


def left_alone(captured: CapturedModel) -> dict[str, list[str]]:
    """What is not rotated: by the reason, the products of attention and the streams of sums."""
    found: dict[str, list[str]] = {}
    for where, why in (*heads_left_alone(captured).items(), *streams_left_alone(captured)):
        found.setdefault(why, []).append(where)
    return found


PREPARATION = Rotate()
