"""Tries on example arguments whether decisions work, alone and together: constants of a forward are in no graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.elastic.blocks import Block
from bitwright.nas.elastic.cut import Cut, difference, together
from bitwright.nas.elastic.decisions import Decision
from bitwright.nas.moves import random_candidate
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.channel_graph import ChannelGraph

# Mixtures of choices on which decisions are tried together, beside all at their least.
_MIXTURES = 2


class Trial:
    """Tries cuts on the example arguments."""

    def __init__(
        self, largest: nn.Module, captured: CapturedModel, channels: ChannelGraph, blocks: Sequence[Block]
    ) -> None:
        self.largest, self.captured, self.channels, self.blocks = largest, captured, channels, tuple(blocks)

    def reason(self, cut: Cut, args: tuple[Any, ...]) -> str:
        """Why a cut fails; "" when it does not."""
        return difference(self.largest, self.captured, self.channels, self.blocks, cut, args)

    def proven(self, decisions: Sequence[Decision], args: tuple[Any, ...], refused: dict[str, str]) -> list[Decision]:
        """The decisions that work, alone and together; reasons of the others are added to `refused`."""
        good = self._alone(list(decisions), args, refused)
        if not good:
            return []
        for cut in self._mixtures(good):
            if self.reason(cut, args):
                good = self._one_by_one(good, args, refused)
                break
        return good

    def _alone(self, decisions: list[Decision], args: tuple[Any, ...], refused: dict[str, str]) -> list[Decision]:
        """Halves, as long as a half fails together: most networks take one try."""
        if not decisions:
            return []
        reason = self.reason(together(each.least for each in decisions), args)
        if not reason:
            return decisions
        if len(decisions) == 1:
            refused[decisions[0].parameter.name] = reason
            return []
        middle = len(decisions) // 2
        return [*self._alone(decisions[:middle], args, refused), *self._alone(decisions[middle:], args, refused)]

    def _mixtures(self, decisions: Sequence[Decision]) -> list[Cut]:
        space = DeclaredSpace(own=tuple(each.parameter for each in decisions))
        rng = np.random.default_rng(0)
        drawn = [random_candidate(space, rng) for _ in range(_MIXTURES)]
        mixed = [together(each.cuts[one.values[each.parameter.name]] for each in decisions) for one in drawn]
        return [together(each.least for each in decisions), *mixed]

    def _one_by_one(
        self, decisions: Sequence[Decision], args: tuple[Any, ...], refused: dict[str, str]
    ) -> list[Decision]:
        """Adds decision after decision, and leaves out those that fail beside the ones before them."""
        kept: list[Decision] = []
        for decision in decisions:
            reason = next((why for cut in self._mixtures([*kept, decision]) if (why := self.reason(cut, args))), "")
            if reason:
                refused[decision.parameter.name] = f"beside others: {reason}"
            else:
                kept.append(decision)
        return kept
