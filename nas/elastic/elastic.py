"""What networks with shared weights are: each candidate is a smaller network whose tensors are parts of the largest's.

Training them is `functional_call(network, shared_state(elastic, candidate), inputs)`: the candidate's own, small
modules compute with views of the largest network's tensors, gradients flow into these, and no layer has to know of it.
After once-for-all networks (Cai et al. 2020, arXiv:1908.09791) and slimmable networks (Yu et al. 2019,
arXiv:1812.08928), whose layers mask or slice in their own forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from bitwright.nas.space import Candidate, SearchSpace
from bitwright.quant.errors import InputError

Places = slice | torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Share:
    """Which part of a tensor of the largest network a candidate's tensor is.

    Attributes:
        tensor: the parameter or buffer of the largest network, by its dotted name.
        places: by dimension, what is taken: a slice with start, stop and step 1 (the first channels, the centre of a
            kernel), or the places themselves, int64. Dimensions that are not named are taken whole.
    """

    tensor: str
    places: Mapping[int, Places] = field(default_factory=dict)

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """The part: a view where all places are slices, else gathered; differentiable in `whole`."""
        for dimension, places in self.places.items():
            if isinstance(places, slice):
                whole = whole.narrow(dimension, places.start, places.stop - places.start)
            else:
                whole = whole.index_select(dimension, places.to(whole.device))
        return whole


class Elastic(Protocol):
    """Networks that share weights."""

    @property
    def space(self) -> SearchSpace:
        """What can be chosen; its `architecture` is the part of a candidate that networks follow from."""

    @property
    def largest(self) -> nn.Module:
        """The network of the largest candidate; it owns all weights, and training changes them here."""

    def network(self, candidate: Candidate) -> nn.Module:
        """The candidate's own network: a new module tree with tensors of its own, smaller, on the CPU.

        Values are unspecified; absent blocks have no tensors.
        """

    def shares(self, candidate: Candidate) -> Mapping[str, Share]:
        """Where each parameter and buffer of `network(candidate)` lies in `largest`, by its dotted name.

        A tensor that the network uses under several names is named once, as `named_parameters` does.
        """


def shared_state(elastic: Elastic, candidate: Candidate) -> dict[str, torch.Tensor]:
    """All tensors of a candidate's network as parts of the largest's, for `torch.func.functional_call`.

    Parameters are views where the part is a run in every dimension and gathered elsewhere; gradients arrive in
    `largest`, and only in what the candidate uses. Buffers are copies: what a batch norm notes about a batch in
    training mode stays in the returned dictionary, since statistics of one candidate are not those of another
    (Yu et al. 2019, section 3.2); they are gathered anew for a candidate that is to be scored.
    """
    parameters, buffers = dict(elastic.largest.named_parameters()), dict(elastic.largest.named_buffers())
    state = {}
    for name, share in elastic.shares(candidate).items():
        if share.tensor in parameters:
            state[name] = share.of(parameters[share.tensor])
        else:
            state[name] = share.of(buffers[share.tensor].detach()).clone()
    return state


@torch.no_grad()
def inherit(elastic: Elastic, candidate: Candidate) -> nn.Module:
    """A candidate's network with copies of the shared values; it stands alone, exports and quantizes.

    Raises:
        InputError: the shares are not those of the network; names the tensor.
    """
    network = elastic.network(candidate)
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    values = shared_state(elastic, candidate)
    for name in own.keys() ^ values.keys():
        whose = "the network has it, its shares do not" if name in own else "it has a share, the network does not"
        raise InputError(f"{candidate}: tensor {name}: {whose}")
    for name, tensor in own.items():
        if tensor.shape != values[name].shape:
            raise InputError(
                f"{candidate}: tensor {name} has shape {list(tensor.shape)}, its share {list(values[name].shape)}"
            )
        tensor.copy_(values[name])
    return network.train(elastic.largest.training)
