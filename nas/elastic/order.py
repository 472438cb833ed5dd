"""The most important channels first, so that every smaller width keeps the most important ones.

Done once, on the largest network: its channels change places and it computes what it did (once-for-all networks sort
theirs by the length of the weights behind them; Cai et al. 2020, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from bitwright.qat.sparsity.importance import MEASURES
from bitwright.qat.sparsity.in_place import take
from bitwright.quant.channel_graph import ChannelGraph, ChannelGroup
from bitwright.quant.errors import unknown


def sort_channels(
    model: nn.Module, channels: ChannelGraph, groups: Sequence[ChannelGroup], *, importance: str = "norm"
) -> None:
    """Sorts the channels of each group in place, the most important first.

    Args:
        model: of the graph; parameters stay the same objects.
        channels: of the model, before and after: which channel is which has no name in it.
        groups: those that are sorted.
        importance: `norm`, `gamma`, or `taylor`, which needs the gradients of a loss.

    Raises:
        InputError: there is no such importance.
    """
    if importance not in MEASURES:
        raise unknown("importance", importance, MEASURES)
    measured = MEASURES[importance](model, channels, groups)
    for group in groups:
        if group.name in measured:
            order = np.argsort(-measured[group.name].numpy(), kind="stable")
            take(model, channels.permuted(group, order.tolist()))
