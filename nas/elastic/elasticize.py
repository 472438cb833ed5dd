"""The user's own network made elastic: what in it can shrink is found, proven, and becomes the decisions of a search.

Channels by the channel graph (through residuals, concatenations, groups, heads of attention), blocks by what they
return (`blocks`), kernels by their padding. Candidates are cut out of the user's module tree, which need not know of
it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from bitwright.nas.block_choices import BlockChoices
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.elastic.blocks import Run, find_runs
from bitwright.nas.elastic.cut import Cut, cut_out, together
from bitwright.nas.elastic.decisions import Decision, Shrinkage, depths, kernels, needs, widths
from bitwright.nas.elastic.elastic import Share
from bitwright.nas.elastic.order import sort_channels
from bitwright.nas.elastic.parts import parts, remembered
from bitwright.nas.elastic.trial import Trial
from bitwright.nas.space import Candidate, hash_of
from bitwright.quant.capture import capture
from bitwright.quant.channel_graph import channel_graph


class Elasticized:
    """See `elastic.Elastic`; made by `elasticize`.

    Attributes:
        space: a decision for each group of channels, run of blocks and kernel that can shrink.
        largest: a copy of the user's network, the most important channels first.
        channels: of it.
        refused: what cannot shrink, and why.
    """

    def __init__(
        self,
        trial: Trial,
        decisions: Sequence[Decision],
        runs: Sequence[Run],
        refused: Mapping[str, str],
        block_choices: BlockChoices,
    ) -> None:
        self.largest, self.channels, self.refused = trial.largest, trial.channels, dict(refused)
        self._trial, self._decisions = trial, tuple(decisions)
        self._shares: dict[str, Mapping[str, Share]] = {}
        reasons = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:3])
        self.space = DeclaredSpace(
            own=tuple(each.parameter for each in decisions),
            needs=needs(decisions, runs),
            block_choices=block_choices,
            nothing=f"nothing of the network can shrink: {reasons or 'it has no such layers'}",
        )

    def cut(self, candidate: Candidate) -> Cut:
        """What the candidate lacks of the largest network."""
        return together(each.cuts[candidate.values[each.parameter.name]] for each in self._decisions)

    def network(self, candidate: Candidate) -> nn.Module:
        """See `Elastic.network`; with the shared values already."""
        return cut_out(self.largest, self.channels, self.cut(candidate))

    def shares(self, candidate: Candidate) -> Mapping[str, Share]:
        """See `Elastic.shares`."""
        key = hash_of(dict(self.space.architecture(candidate)))

        def made() -> Mapping[str, Share]:
            return parts(self.largest, self.network(candidate), self.channels, self.cut(candidate).units)

        return remembered(self._shares, key, made)

    def difference(self, candidate: Candidate, args: tuple[Any, ...]) -> str:
        """Why the candidate's network is not the largest one with zeros for all that it lacks; "" when it is."""
        return self._trial.reason(self.cut(candidate), args)


def elasticize(
    model: nn.Module,
    example: tuple[Any, ...],
    asked: Shrinkage,
    *,
    block_choices: BlockChoices | None = None,
) -> Elasticized:
    """Finds what of a network can shrink; every finding is tried on the example, alone and together with others.

    Args:
        model: the user's module; it is not changed, a copy becomes the largest network.
        example: arguments of `forward`.
        asked: what may shrink, and how far.
        block_choices: formats and patterns of zeros as further decisions.

    Raises:
        CaptureError: the network cannot be captured whole.
        InputError: nothing of it can shrink: says why; or it has not the blocks that `block_choices` are about.
    """
    block_choices = block_choices or BlockChoices()
    block_choices.check(model)
    largest = copy.deepcopy(model)
    captured = capture(largest, example)
    channels = channel_graph(captured.graph)
    refused = {ref.module_path: f"stay: {reason}" for ref, reason in channels.kept.items()}
    groups = [group for group in channels.groups if not asked.keeps(group.name)]
    if not asked.inexact:
        refused |= {group.name: f"would change others: {group.inexact}" for group in groups if group.inexact}
        groups = [group for group in groups if not group.inexact]
    if asked.width:
        sort_channels(largest, channels, groups, importance=asked.importance)
    runs, unlike_blocks = find_runs(largest, channels, example) if asked.depth else ([], {})
    runs = [run for run in runs if not asked.keeps(run.name)]
    shallower, not_shallower = depths(runs, asked)
    narrower = widths(channels, groups, asked) if asked.width else []
    smaller, not_smaller = kernels(largest, asked) if asked.kernel else ([], {})
    refused |= unlike_blocks | not_shallower | not_smaller
    trial = Trial(largest, captured, channels, [block for run in runs for block in run.blocks])
    decisions = trial.proven([*shallower, *narrower, *smaller], example, refused)
    return Elasticized(trial, decisions, runs, refused, block_choices)
