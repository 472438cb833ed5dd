"""How the elements of a tensor lie in memory: plain (row by row as in the graph), or an image in its engine's layout.

An image `[N, C, …]` can have its channels last (`NHWC`), in blocks before the rows (`NC/32HW32`) or in blocks between
rows and columns (Arm's `NHCWB16`); channels are then padded to a multiple.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

PLAIN = "plain"
# Blocks of channels before the rows (TensorRT's and the DLA's names), or between rows and columns (Arm's).
_BLOCKED = re.compile(r"(?:NC/\d+HW|N?CHW)(\d+)|NHCWB(\d+)")


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A tensor's place in a layout.

    Attributes:
        layout: `plain`, or the name of one of the target's layouts.
        shape: the tensor's, as the graph has it.
        bits: of one element.
        channel_multiple: what the channels are padded to; 1 for plain ones.
    """

    layout: str
    shape: tuple[int, ...]
    bits: int
    channel_multiple: int = 1

    @property
    def item_bytes(self) -> int:
        """Bytes that one element takes where it can be addressed by itself; elements below a byte are packed."""
        return -(-self.bits // 8)

    @cached_property
    def stored_shape(self) -> tuple[int, ...]:
        """The dimensions in the order in which they lie in memory, padding included."""
        if self.layout == PLAIN or len(self.shape) < 3:
            return self.shape
        batch, channels, *image = self.shape
        padded = -(-channels // self.channel_multiple) * self.channel_multiple
        match = _BLOCKED.fullmatch(self.layout)
        if match is None:  # channels last
            return (batch, padded, *image) if self.layout == "NCHW" else (batch, *image, padded)
        block = int(match[1] or match[2])
        blocks = -(-padded // block)
        if match[1]:
            return (batch, blocks, *image, block)
        return (batch, *image[:-1], blocks, image[-1], block)

    @property
    def bytes(self) -> int:
        """Bytes, padding included."""
        return -(-math.prod(self.stored_shape) * self.bits // 8)

    def logical(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The tensor of `shape` as a view of (or, where blocks have to be joined, a copy from) the stored elements.

        Args:
            stored: of `stored_shape`.
        """
        if self.layout == PLAIN or len(self.shape) < 3:
            return stored
        channels, rank = self.shape[1], len(self.shape)
        match = _BLOCKED.fullmatch(self.layout)
        if match is None:
            if self.layout == "NCHW":
                return stored[:, :channels]
            return np.moveaxis(stored, -1, 1)[:, :channels]
        blocks_at = 1 if match[1] else rank - 2
        apart = np.moveaxis(np.moveaxis(stored, blocks_at, 1), -1, 2)  # [N, blocks, block, …]
        return apart.reshape(apart.shape[0], -1, *apart.shape[3:])[:, :channels]

    def store(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The elements as they are stored, padding 0.

        Args:
            values: of `shape`.
        """
        if self.layout == PLAIN or len(self.shape) < 3:
            return values
        stored = np.zeros(self.stored_shape, values.dtype)
        match = _BLOCKED.fullmatch(self.layout)
        if match is None:
            self.logical(stored)[...] = values
            return stored
        block = int(match[1] or match[2])
        blocks_at = 1 if match[1] else len(self.shape) - 2
        padding = [(0, 0)] * values.ndim
        padding[1] = (0, self.stored_shape[blocks_at] * block - values.shape[1])
        padded = np.pad(values, padding)
        apart = padded.reshape(padded.shape[0], -1, block, *padded.shape[2:])
        stored_view = np.moveaxis(np.moveaxis(apart, 2, -1), 1, blocks_at)
        return np.ascontiguousarray(stored_view)
