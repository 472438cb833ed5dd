"""What is refused before and during training, each in one message."""

from __future__ import annotations

import math

import torch
from torch import nn

from bitwright.qat.quantizer import Quantizers
from bitwright.qat.replay import CHILD
from bitwright.quant.errors import InputError

# A scale a thousand times smaller or larger than at its start no longer quantizes the same tensor.
_LARGEST_RATIO = math.log(1024.0)


def check_attachable(model: nn.Module) -> None:
    """Refuses models that something else holds already.

    Raises:
        InputError: a wrapped model, or one that trains in low precision already.
    """
    if isinstance(model, nn.DataParallel):
        raise InputError(
            "nn.DataParallel copies the model in every step; use DistributedDataParallel, one process a GPU"
        )
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise InputError("give the callback the model inside DistributedDataParallel, before it is wrapped")
    if hasattr(model, "_orig_mod"):
        raise InputError("give the callback the model itself, before torch.compile")
    if hasattr(model, CHILD):
        raise InputError(
            "a QATCallback is attached to this model already; call its finish() before another is attached"
        )
    if not any(True for _ in model.parameters()):
        raise InputError("the model has no parameters to train")


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuses an optimizer that could not take the scales.

    Raises:
        InputError: it trains another model, or a scheduler counts its groups already.
    """
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise InputError("the optimizer has none of the model's parameters; make it from model.parameters()")
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        raise InputError(
            "a learning-rate scheduler is on this optimizer already, and would not know the group of the scales; "
            "make the scheduler after the callback"
        )


def refuse_broken_gradients(quantizers: Quantizers, step: int) -> None:
    """Stops before the optimizer writes NaN into the weights.

    Raises:
        InputError: the gradient of a scale is not finite; the weights are as they were.
    """
    named = [(name, q.log_ratio.grad) for name, q in quantizers.named() if q.log_ratio.grad is not None]
    if not named:
        return
    norms = torch.stack([norm.float() for norm in torch._foreach_norm([gradient for _, gradient in named])])
    if torch.isfinite(norms).all():
        return
    broken = [name for (name, _), norm in zip(named, norms, strict=True) if not torch.isfinite(norm)]
    raise InputError(
        f"step {step}: the gradient is NaN or infinite at {len(broken)} of {len(named)} scales, such as {broken[0]}; "
        "the loss or an activation overflowed. The step was not taken: lower the learning rate, clip gradients, or "
        "check the batch"
    )


def check_scales(quantizers: Quantizers, step: int) -> None:
    """Stops when a scale has run away.

    Raises:
        InputError: names the tensor and what helps.
    """
    ratios = [(name, q.log_ratio) for name, q in quantizers.named() if q.learned]
    if not ratios:
        return
    furthest = torch.stack(
        [norm.float() for norm in torch._foreach_norm([r.detach() for _, r in ratios], float("inf"))]
    )
    worst = int(torch.nan_to_num(furthest, nan=torch.inf).argmax())
    if furthest[worst] <= _LARGEST_RATIO:
        return
    name, ratio = ratios[worst]
    factor = float(ratio.detach().flatten()[ratio.detach().abs().argmax()].exp())
    raise InputError(
        f"step {step}: the scale of {name} is {factor:.3g} times what it was at the start; "
        "give a smaller scale_lr, or learn_scales=False"
    )
