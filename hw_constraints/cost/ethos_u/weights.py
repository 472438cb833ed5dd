"""How many bytes the encoded weights of a layer take.

The accelerator reads weights in the order in which it multiplies them, padded with zeros to whole micro-blocks, and
coded value by value: quotient in unary, remainder in binary (Golomb-Rice), frequent values first, runs of zeros apart.
Here the code's length is reckoned from the histogram of the codes; the order within the stream is not followed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.cost.ethos_u.block_search import Block, Traversal
from bitwright.hw_constraints.cost.ethos_u.figures import SCALE_BYTES, Configuration, ceil_div, round_up
from bitwright.hw_constraints.cost.ethos_u.weight_codes import WeightHistogram

PALETTE = 32  # the most frequent values have an index of their own
ZERO_FACTOR = 5  # runs of zeros are coded apart when zeros are so much more frequent than any other value
DIVISORS = range(6)  # of the Golomb-Rice code
SECTION_BITS = 40 + 32 * 9  # a slice's header and its palette


@dataclass(frozen=True, kw_only=True)
class EncodedWeights:
    """The weights of one operation as they lie in memory.

    Attributes:
        channels: output channels.
        source: weights with their padding, in elements.
        weight_bytes: encoded weights of all channels.
        scale_unit: channels that scales come in multiples of.
        zeros: how many of the source's elements are coded as runs of zeros.
        fast: coded with 8 bits each, for the faster decoder (U85).
        cores: streams that the weights are split into.
    """

    channels: int
    source: int
    weight_bytes: int
    scale_unit: int
    zeros: int
    fast: bool
    cores: int

    @property
    def bytes(self) -> int:
        """All that is stored, unsliced."""
        return self.slice_bytes(0, self.channels)

    def slice_bytes(self, first: int, last: int) -> int:
        """What the output channels `first … last - 1` take."""
        return self.scale_bytes(last - first) + self.weight_slice_bytes(last - first)

    def weight_slice_bytes(self, channels: int) -> int:
        """Encoded weights of so many channels, each stream filled up to 16 bytes."""
        streams = 1 if self.fast else min(self.cores, channels)
        return streams * round_up(ceil_div(round(self.weight_bytes * channels / self.channels), streams), 16)

    def scale_bytes(self, channels: int) -> int:
        """Bias, scale and shift of so many channels: split over the cores, on U85 filled up to micro-blocks."""
        if self.scale_unit > 1:
            return round_up(round_up(channels, self.scale_unit) * SCALE_BYTES, 16)
        shares = (ceil_div(channels - core, self.cores) for core in range(min(self.cores, channels)))
        return sum(round_up(share * SCALE_BYTES, 16) for share in shares)

    @cached_property
    def zero_share(self) -> float:
        """Share of zeros among the source's elements."""
        return self.zeros / self.source


@lru_cache(maxsize=16384)
def encode(
    codes: WeightHistogram, configuration: Configuration, block: Block, dilation: tuple[int, int] = (1, 1)
) -> EncodedWeights:
    """The size of a layer's weights.

    Args:
        codes: of the layer.
        configuration: of the accelerator.
        block: which the layer runs in.
        dilation: of its window; a subkernel has 8 / dilation taps.
    """
    channels = codes.shape[0]
    source = _padded(codes.shape, configuration, block, dilation)
    size, counts = math.prod(codes.shape), codes.frequencies
    padding = source - size
    runs = _zeros_in_runs(int(counts[256]), size, padding)
    counts[256] += padding
    bits, zeros = _code_bits(counts, runs)
    return EncodedWeights(
        channels=channels,
        source=source,
        weight_bytes=ceil_div(bits, 8),
        scale_unit=round_up(block.micro[2], 16) if configuration.is_u85 else 1,
        zeros=zeros,
        fast=False,
        cores=configuration.cores,
    )


def encode_fast(encoded: EncodedWeights) -> EncodedWeights:
    """The same weights for the fast decoder: a 32-byte header and 8 bits an element."""
    return EncodedWeights(
        channels=encoded.channels,
        source=encoded.source,
        weight_bytes=32 + encoded.source,
        scale_unit=encoded.scale_unit,
        zeros=0,
        fast=True,
        cores=encoded.cores,
    )


def _padded(shape: tuple[int, ...], configuration: Configuration, block: Block, dilation: tuple[int, int]) -> int:
    """Elements of the stream.

    U55: channels in to 32 (depth first) or 8 (kernel first), taps to 4 (kernel first, depthwise), channels out to the
    micro-block of each core. U85: channels in to 64 or 16, taps to 5 (kernel first) or 10 (depthwise, and 6 zeros
    behind each 10).
    """
    channels, rows, columns, depth = shape
    taps = 0
    u85 = configuration.is_u85
    group = {Traversal.DEPTH_FIRST: 1, Traversal.KERNEL_FIRST: 5 if u85 else 4, Traversal.DEPTHWISE: 10 if u85 else 4}
    size = group[block.traversal]
    for y in range(0, rows, 8 // dilation[0]):
        for x in range(0, columns, 8 // dilation[1]):
            taps += round_up(min(rows - y, 8 // dilation[0]) * min(columns - x, 8 // dilation[1]), size)
    if block.traversal is Traversal.DEPTHWISE:
        taps += taps // size * configuration.depthwise_padding
        depth = 1
    elif block.traversal is Traversal.KERNEL_FIRST:
        depth = round_up(depth, 16 if u85 else configuration.ifm_depth)
    else:
        depth = round_up(depth, 64 if u85 else 32)
    return taps * depth * _padded_channels(channels, configuration, block)


def _padded_channels(channels: int, configuration: Configuration, block: Block) -> int:
    """Output channels, filled up within each block and, on U55 and U65, within each core."""
    total = 0
    for first in range(0, channels, block.ofm[2]):
        part = min(block.ofm[2], channels - first)
        if configuration.is_u85:
            total += round_up(part, block.micro[2])
        else:
            shares = [ceil_div(part - core, configuration.cores) for core in range(min(configuration.cores, part))]
            total += sum(round_up(share, block.micro[2]) for share in shares)
    return total


def _zeros_in_runs(zeros: int, size: int, padding: int) -> int:
    """Zeros that have a zero beside them: the padding, and of the others as many as chance puts side by side."""
    share = (zeros + padding) / max(size + padding, 1)
    return padding + int(zeros * (1 - (1 - share) ** 2))


def _code_bits(counts: npt.NDArray[np.int64], runs: int) -> tuple[int, int]:
    """Bits of all values and how many zeros were coded as runs, from the frequencies of -256 … 255."""
    zeros, others = int(counts[256]), np.delete(counts, 256)
    if zeros > ZERO_FACTOR * int(others.max(initial=0)) and runs >= zeros // 2:
        coded = counts.copy()
        coded[256] = 0
        return _value_bits(coded) + _run_bits(zeros, int(coded.sum())), zeros
    return _value_bits(counts), 0


def _value_bits(counts: npt.NDArray[np.int64]) -> int:
    """The best of the codes: Golomb-Rice with one divisor, or the same number of bits for each value."""
    values = np.arange(-256, 256)
    folded = 2 * np.abs(values) + (values < 0)
    order = np.argsort(folded, kind="stable")
    folded, sorted_counts = folded[order], counts[order]
    total = int(counts.sum())
    if not total:
        return SECTION_BITS
    largest = int(folded[sorted_counts > 0].max())
    frequent = np.sort(sorted_counts)[::-1]
    palette = int(frequent[:PALETTE].sum()) >= total // 2
    if palette:
        chosen = np.argsort(-sorted_counts, kind="stable")[:PALETTE]
        index = folded + PALETTE
        index[chosen] = np.arange(len(chosen))
    else:
        index = folded - int(np.flatnonzero(sorted_counts)[0] if sorted_counts[:31].any() else 0)
    lengths = []
    for divisor in DIVISORS:
        quotient = index >> divisor
        if int(quotient[sorted_counts > 0].max()) <= 31:
            lengths.append(int((sorted_counts * (quotient + 1 + divisor)).sum()))
        if int(quotient[sorted_counts > 0].max()) <= 2:
            lengths.append(int((sorted_counts * (np.minimum(quotient + 1, 2) + divisor)).sum()))
    only_palette = palette and int(frequent[PALETTE:].sum()) == 0
    if only_palette or not palette:
        symbols = int((counts > 0).sum())
        width = max((symbols - 1).bit_length(), 1) if only_palette else max(largest.bit_length(), 2)
        lengths.append(total * width)
    return SECTION_BITS + min(lengths)


def _run_bits(zeros: int, values: int) -> int:
    """One run length behind each value, geometrically distributed: quotient and remainder of the mean run."""
    mean = zeros / max(values, 1)
    return int(min((values + 1) * (1 + divisor) + zeros / (1 << divisor) * (1 if mean else 0) for divisor in range(4)))
