"""What `torch.distributed` says of tensors: whole ones, parts of them, and what other processes hold."""

from __future__ import annotations

import torch
import torch.distributed as dist


def ranks() -> int:
    """How many processes train together; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes files."""
    return ranks() == 1 or dist.get_rank() == 0


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether `fully_shard` has left this process a part of a tensor only."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be sharded; every process has to ask."""
    full: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor."""
    part: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def own_rows(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Of a whole tensor that broadcasts against another, what belongs to the part that this process holds of that."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    spread = tensor.expand(like.shape).contiguous()
    return distribute_tensor(spread, like.device_mesh, like.placements, src_data_rank=None).to_local()


def any_rank(here: bool, tensors: list[torch.Tensor]) -> bool:
    """Whether something holds in any process that has a part of these tensors; without parts, whether it holds here.

    Whole tensors are the same in all processes, which then need not ask each other.
    """
    sharded = [tensor for tensor in tensors if is_sharded(tensor)]
    if not sharded:
        return here
    flag = torch.tensor(float(here), device=own_part(sharded[0]).device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def nothing_like(tensor: torch.Tensor) -> torch.Tensor:
    """The extremes of no values, float32 [2]: the least is above the greatest."""
    return torch.tensor([torch.inf, -torch.inf], device=tensor.device)


def widest_of_ranks(extremes: list[torch.Tensor]) -> list[torch.Tensor]:
    """The least and greatest values that any process has seen, by one message.

    Args:
        extremes: (low, high) of each tensor, float32 [2]; `nothing_like` where this process has seen none of it.
    """
    if ranks() == 1 or not extremes:
        return extremes
    signs = torch.tensor([-1.0, 1.0], device=extremes[0].device)
    message = torch.nan_to_num(torch.stack(extremes) * signs, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    dist.all_reduce(message, dist.ReduceOp.MAX)
    return list((message * signs).unbind())
