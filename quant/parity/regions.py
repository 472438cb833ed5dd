"""On which part of an input a layer breaks, found by halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.utils._pytree as pytree

from bitwright.quant.parity.link import Link
from bitwright.quant.parity.locate import compare_links
from bitwright.quant.parity.results import Inputs

Box = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Region:
    """The smallest part of an input that still breaks a layer, all else in it being its mean.

    Attributes:
        sample: which input.
        rows: of its last but one axis, [first, last).
        columns: of its last axis.
        size: of these axes.
        runs: how many comparisons it took.
    """

    sample: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    size: tuple[int, int]
    runs: int

    def __str__(self) -> str:
        (top, bottom), (left, right) = self.rows, self.columns
        whole = self.rows == (0, self.size[0]) and self.columns == (0, self.size[1])
        place = "all of it" if whole else f"rows {top} to {bottom - 1}, columns {left} to {right - 1}"
        return f"input {self.sample}: {place} of {self.size[0]} x {self.size[1]}"


def bisect_region(first: Link, second: Link, inputs: Sequence[Inputs], layer: str, sample: int) -> Region | None:
    """Halves the part of one input that is left as it is, as long as the layer breaks on it.

    Args:
        first: the reference.
        second: the link that breaks.
        inputs: those that were compared.
        layer: the reference's name of the tensor that breaks.
        sample: the input on which it breaks.

    Returns:
        None where no argument has two axes of more than one element, so that there is nothing to halve.
    """
    leaves, spec = pytree.tree_flatten((inputs[sample].args, dict(inputs[sample].kwargs)))
    images = [each for each in leaves if isinstance(each, torch.Tensor) and each.is_floating_point() and each.dim() > 2]
    if not images:
        return None
    size = (int(images[0].shape[-2]), int(images[0].shape[-1]))
    box, runs = ((0, size[0]), (0, size[1])), 0

    def breaks(kept: Box) -> bool:
        nonlocal runs
        runs += 1
        args, kwargs = pytree.tree_unflatten([_only(each, size, kept) for each in leaves], spec)
        found = compare_links(first, second, [replace(inputs[sample], args=args, kwargs=kwargs)])
        return layer in {each.tensor.name for each in found.breaks}

    while (smaller := next((half for half in _halves(box) if breaks(half)), None)) is not None:
        box = smaller
    return Region(sample=sample, rows=box[0], columns=box[1], size=size, runs=runs)


def _halves(box: Box) -> Sequence[Box]:
    """Both halves along the longer side; none of a single pixel."""
    (top, bottom), (left, right) = box
    if bottom - top >= right - left and bottom - top > 1:
        middle = (top + bottom) // 2
        return ((top, middle), (left, right)), ((middle, bottom), (left, right))
    if right - left > 1:
        middle = (left + right) // 2
        return ((top, bottom), (left, middle)), ((top, bottom), (middle, right))
    return ()


def _only(tensor: object, size: tuple[int, int], kept: Box) -> object:
    """An image with all but the kept part at its mean; other tensors stay."""
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.shape[-2:] != torch.Size(size):
        return tensor
    (top, bottom), (left, right) = kept
    blank = tensor.mean().expand_as(tensor).clone()
    blank[..., top:bottom, left:right] = tensor[..., top:bottom, left:right]
    return blank
