"""Patterns of zeros that hardware can skip, and which weights a pattern drops.

A weight [out, in, …] is read as one matrix [out, in] for each place of the kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitwright.quant.errors import InputError

if TYPE_CHECKING:  # recipes are checked without torch
    import torch

_N_OF_M = re.compile(r"(\d+):(\d+)")
_BLOCKS = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Either n of every m neighbouring input channels stay, or whole blocks of `rows` outputs by `columns` inputs go.

    Attributes:
        n: how many of m weights stay; 0 for blocks.
        m: how many neighbours along the input channels are chosen among.
        rows: of a block, along the output channels.
        columns: of a block, along the input channels.
        share: of the weights that are zero at the end.
    """

    n: int = 0
    m: int = 0
    rows: int = 1
    columns: int = 1
    share: float = 0.5

    @classmethod
    def parse(cls, text: str, *, share: float | None = None) -> Pattern:
        """Reads `"2:4"` (two of four stay) or `"16x1"` (blocks of 16 outputs by 1 input).

        Args:
            text: the pattern.
            share: of blocks that go; 0.5 when not given. `n:m` says it already.

        Raises:
            InputError: neither form, or a share that contradicts it.
        """
        if found := _N_OF_M.fullmatch(text):
            n, m = map(int, found.groups())
            if not 0 < n < m:
                raise InputError(f"pattern = {text!r}: of N:M, N weights of M stay; give 0 < N < M, such as 2:4")
            if share is not None and share != 1 - n / m:
                raise InputError(
                    f"share = {share}: pattern {text} makes {1 - n / m:g} of all weights zero; leave it out"
                )
            return cls(n=n, m=m, share=1 - n / m)
        if found := _BLOCKS.fullmatch(text):
            rows, columns = map(int, found.groups())
            chosen = 0.5 if share is None else share
            if not rows or not columns or not 0 < chosen < 1:
                raise InputError(f"pattern = {text!r}, share = {share}: give blocks of at least 1x1 and 0 < share < 1")
            return cls(rows=rows, columns=columns, share=chosen)
        raise InputError(f"pattern = {text!r} is neither N:M (2:4) nor ROWSxCOLUMNS of a block (16x1)")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.m else f"{self.rows}x{self.columns}"

    def misfit(self, shape: torch.Size) -> str:
        """Why a weight cannot have the pattern; "" when it can."""
        out, inner = shape[:2]
        if self.m and inner % self.m:
            return f"{inner} input channels are no multiple of {self.m}"
        if not self.m and (out % self.rows or inner % self.columns):
            return f"{out}x{inner} channels are not divided into blocks of {self.rows}x{self.columns}"
        return ""

    def keeps(self, weight: torch.Tensor, progress: float = 1.0) -> torch.Tensor:
        """Which weights stay: those of the largest magnitude (of a block: sum of magnitudes).

        Args:
            weight: float [out, in, …].
            progress: of the weights that the whole pattern drops, the share that is dropped now, smallest first.

        Returns:
            bool, like the weight.
        """
        import torch

        matrices = weight.detach().abs().reshape(*weight.shape[:2], -1).movedim(-1, 0)  # [places, out, in]
        places, out, inner = matrices.shape
        if self.m:
            groups = matrices.reshape(places, out, inner // self.m, self.m)
            dropped = groups.argsort(dim=-1, stable=True).argsort(dim=-1) < self.m - self.n
            stays = ~_smallest(groups, dropped, progress)
        else:
            cut = (places, out // self.rows, self.rows, inner // self.columns, self.columns)
            sums = matrices.reshape(cut).sum(dim=(2, 4), keepdim=True)
            dropped = _smallest(sums, torch.ones_like(sums, dtype=torch.bool), self.share)
            stays = (~_smallest(sums, dropped, progress)).expand(cut)
        return stays.reshape(places, out, inner).movedim(0, -1).reshape(weight.shape)


def _smallest(scores: torch.Tensor, among: torch.Tensor, share: float) -> torch.Tensor:
    """Marks the `share` of lowest scores among the marked ones."""
    import torch

    candidates = among.flatten().nonzero().squeeze(1)
    count = round(share * len(candidates))
    order = scores.flatten()[candidates].argsort(stable=True)[:count]
    marked = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    marked[candidates[order]] = True
    return marked.reshape(scores.shape)


def cubic(step: int, begin: int, end: int) -> float:
    """How far a gradual schedule is: `1 - (1 - t)^3` with t from 0 at `begin` to 1 at `end` (Zhu & Gupta 2017, eq. 1).

    Most is dropped early, while the network has much to spare and time to recover.
    """
    if step >= end:
        return 1.0
    done = max(0.0, (step - begin) / (end - begin))
    return float(1.0 - (1.0 - done) ** 3)
