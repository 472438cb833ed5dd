"""Several processes that train one network: `torchrun` with DistributedDataParallel or `fully_shard`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.utils._pytree as pytree
from torch import nn

from bitwright.qat.batches import rows_of
from bitwright.qat.replay import CHILD, Parts, Replay
from bitwright.qat.shards import is_sharded, ranks, whole
from bitwright.quant.errors import InputError


@torch.no_grad()
def start_equal(tensors: Iterable[torch.Tensor]) -> None:
    """Gives every process the first one's values, as DistributedDataParallel does when it wraps a model."""
    if ranks() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


def shared_samples(samples: list[tuple[Any, ...]], count: int) -> list[tuple[Any, ...]]:
    """The calibration samples of all processes, the same list in each: every one has its own share of the data.

    Args:
        samples: batches of arguments that this process has read.
        count: how many samples to keep of all together, about evenly from each.
    """
    if ranks() == 1:
        return samples
    gathered: list[Any] = [None] * ranks()
    dist.all_gather_object(gathered, pytree.tree_map_only(torch.Tensor, lambda t: t.cpu(), _first(samples, count)))
    devices = [leaf.device for leaf in pytree.tree_leaves(samples) if isinstance(leaf, torch.Tensor)]
    everything = [batch for each in gathered for batch in each]
    return pytree.tree_map_only(torch.Tensor, lambda t: t.to(devices[0]), everything) if devices else everything


def _first(samples: list[tuple[Any, ...]], count: int) -> list[tuple[Any, ...]]:
    share, kept = -(-count // ranks()), []
    for batch in samples:
        if share <= 0:
            break
        kept.append(batch)
        share -= rows_of(batch)
    return kept


@torch.no_grad()
def check_rank_equal(named: Iterable[tuple[str, torch.Tensor]], step: int) -> None:
    """Holds that all processes have the same scales; every process has to ask.

    Raises:
        InputError: they differ; names the first tensor. Every process raises it.
    """
    pairs = [(name, tensor.detach().float().flatten()) for name, tensor in named if not is_sharded(tensor)]
    if ranks() == 1 or not pairs:
        return
    own = torch.cat([values for _, values in pairs])
    bounds = torch.cat([own, -own])
    dist.all_reduce(bounds, dist.ReduceOp.MAX)
    differs = bounds[: len(own)] != -bounds[len(own) :]
    if not differs.any():
        return
    owners = [name for name, values in pairs for _ in range(len(values))]
    name = owners[int(differs.nonzero()[0])]
    raise InputError(
        f"step {step}: the {ranks()} processes have different scales, first at {name}; wrap the model in "
        "DistributedDataParallel (or fully_shard) after the callback is attached, so that gradients are averaged"
    )


def plain_twin(model: nn.Module, parts: Parts) -> Replay:
    """A copy of the model without room for its parameters, which `fully_shard` cannot touch.

    What is deployed at the end is computed by the copy, filled with the gathered parameters: the sharded module holds
    parts of them only, and its forward waits for the other processes.
    """
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return Replay(*copy.deepcopy((model, parts), memo))


def gathered_state(model: nn.Module) -> Mapping[str, torch.Tensor]:
    """All parameters and buffers, whole; every process has to ask."""
    return {name: whole(tensor).detach().clone() for name, tensor in model.state_dict().items()}


def whole_twin(twin: Replay | None, sharded: Replay) -> Replay:
    """The twin with all parameters of the sharded module, as it is at this moment; every process has to ask.

    Raises:
        InputError: there is none, since one process alone has sharded the model.
    """
    state = gathered_state(sharded.model)
    if twin is None:
        raise InputError("the model was sharded by one process alone; leave fully_shard out")
    for (_, own), (_, copied) in zip(sharded.parts.quantizers.named(), twin.parts.quantizers.named(), strict=True):
        copied.spec = own.spec
    twin.model.add_module(CHILD, twin.parts.quantizers)
    twin.model.load_state_dict(state, assign=True)
    twin.model.train(sharded.model.training)
    delattr(twin.model, CHILD)
    return twin
