"""A family of networks of one builder as networks with shared weights: by the names of layers, first channels first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from bitwright.nas.elastic.elastic import Share
from bitwright.nas.elastic.order import sort_channels
from bitwright.nas.elastic.parts import parts, remembered
from bitwright.nas.moves import largest_candidate
from bitwright.nas.space import Candidate, SearchSpace, Value, hash_of
from bitwright.quant.capture import capture
from bitwright.quant.channel_graph import ChannelGraph, channel_graph

Build = Callable[[Mapping[str, Value]], nn.Module]


class BuiltElastic:
    """See `elastic.Elastic`; any search space with the builder of its networks, such as `Workload.build`.

    A layer shares its weights with the layer of the same name of the largest network. Which part, says the channel
    graph of the largest network; see `parts`.

    Args:
        space: what can be chosen; the greatest numbers together make the largest network.
        build: a network from the architecture of a candidate.
        example: arguments of the largest network's `forward`; without them no channel graph is made, and each layer
            keeps the first of its channels, which is right where nothing is concatenated or packed.
        largest: the largest network where it was trained before; a new one otherwise.

    Raises:
        CaptureError: the largest network cannot be captured.
    """

    def __init__(
        self,
        space: SearchSpace,
        build: Build,
        *,
        example: tuple[Any, ...] | None = None,
        largest: nn.Module | None = None,
    ) -> None:
        self.space = space
        self.largest = build(space.architecture(largest_candidate(space))) if largest is None else largest
        self.channels: ChannelGraph | None = None
        if example is not None:
            found = channel_graph(capture(self.largest, example).graph)
            self.channels = replace(found, graph=replace(found.graph, load=None))  # values do not travel to workers
        self._build = build
        self._shares: dict[str, Mapping[str, Share]] = {}

    def sort(self, importance: str = "norm") -> None:
        """Sorts the channels of the largest network (`order.sort_channels`), best once it alone has been trained."""
        if self.channels is not None:
            sort_channels(self.largest, self.channels, self.channels.groups, importance=importance)

    def network(self, candidate: Candidate) -> nn.Module:
        """See `Elastic.network`; here with the builder's fresh weights."""
        return self._build(self.space.architecture(candidate))

    def shares(self, candidate: Candidate) -> Mapping[str, Share]:
        """See `Elastic.shares`.

        Raises:
            InputError: the candidate's network is no part of the largest.
        """
        key = hash_of(dict(self.space.architecture(candidate)))
        return remembered(self._shares, key, lambda: parts(self.largest, self.network(candidate), self.channels))
