"""What is refused before and during training, each in one message."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bitwright.qat.quantizer import Quantizers
from bitwright.qat.replay import CHILD, Parts
from bitwright.qat.shards import any_rank, is_sharded, own_part
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
    lazy = [name for name, each in model.named_parameters() if isinstance(each, UninitializedParameter)]
    if lazy:
        raise InputError(
            f"parameter {lazy[0]} has no shape yet; run the model once on a batch before the callback is attached"
        )
    _refuse_rewritten_weights(model)
    if any(is_sharded(parameter) for parameter in model.parameters()):
        raise InputError("the model is sharded already; attach the callback before fully_shard")
    if not any(True for _ in model.parameters()):
        raise InputError("the model has no parameters to train")


def _refuse_rewritten_weights(model: nn.Module) -> None:
    """Refuses the norms of `torch.nn.utils` that put a new tensor in the place of a weight before each forward."""
    kinds = {WeightNorm: "weight_norm", SpectralNorm: "spectral_norm"}
    for name, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if kind := kinds.get(type(hook)):
                raise InputError(
                    f"{name or 'the model'} has torch.nn.utils.{kind}, which replaces its weight before each forward; "
                    f"use torch.nn.utils.parametrizations.{kind}, which trains the same"
                )


def check_trains(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuses an optimizer of something else.

    Raises:
        InputError: it has none of the model's parameters.
    """
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise InputError("the optimizer has none of the model's parameters; make it from model.parameters()")


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuses an optimizer that could not take the scales.

    Raises:
        InputError: it trains another model, or a scheduler counts its groups already.
    """
    check_trains(optimizer, model)
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        raise InputError(
            "a learning-rate scheduler is on this optimizer already, and would not know the group of the scales; "
            "make the scheduler after the callback"
        )


def refuse_broken_gradients(parts: Parts, step: int, origin: Callable[[], str]) -> None:
    """Stops before the optimizer writes NaN into the weights.

    Args:
        parts: what is trained. Their gradients come through every activation, so that those of the scales, or of the
            layers' weights where scales do not learn, tell of all.
        step: the number of steps taken.
        origin: says in words where the first value that is not finite arises.

    Raises:
        InputError: a gradient is not finite; the weights are as they were.
    """
    named = [(name, each) for name, q in parts.quantizers.named() if q.learned for each in q.parameters()]
    kind = "scales"
    if not named:
        named = [(str(layer.weight), layer.module.weight) for layer in parts.layers]  # type: ignore[misc]
        kind = "weights"
    found = [(name, own_part(each.grad)) for name, each in named if each.grad is not None]
    found = [(name, gradient) for name, gradient in found if gradient.numel()]
    norms = [norm.float() for norm in torch._foreach_norm([gradient for _, gradient in found])] if found else []
    is_broken = bool(norms) and not bool(torch.isfinite(torch.stack(norms)).all())
    if not any_rank(is_broken, [each for _, each in named]):
        return
    broken = [name for (name, _), norm in zip(found, norms, strict=True) if not torch.isfinite(norm)]
    where = f", such as {broken[0]}" if broken else ""
    raise InputError(
        f"step {step}: the gradient is NaN or infinite at {len(broken)} of {len(found)} {kind}{where}; {origin()}. "
        "The step was not taken: lower the learning rate, clip gradients, or check the batch"
    )


def refuse_rate(rate: float, step: int) -> None:
    """Stops before a step that could carry scales away at once: plain descent moves one by a factor of `exp(rate)`.

    Args:
        rate: the learning rate of the scales in the step that is due.
        step: the number of steps taken.

    Raises:
        InputError: it is too large; nothing has changed.
    """
    if rate > _LARGEST_RATIO:
        raise InputError(
            f"step {step}: the optimizer's learning rate is {rate:g}, and scales learn at it in shares of themselves; "
            "the step was not taken: lower the learning rate, or give scale_lr, which is below 1"
        )


def check_scales(quantizers: Quantizers, step: int, *, rate: float | None = None, asked: float | None = None) -> None:
    """Stops when a scale has run away.

    Args:
        quantizers: whose scales.
        step: the number of steps taken.
        rate: the learning rate of the scales in the last step; None where no optimizer was seen.
        asked: the `scale_lr` that the user gave; None where scales learn at the optimizer's own rate.

    Raises:
        InputError: names the tensor and what helps.
    """
    ratios = [(name, q.log_ratio) for name, q in quantizers.named() if q.learned]
    parts = [(name, own_part(ratio.detach())) for name, ratio in ratios]
    parts = [(name, part) for name, part in parts if part.numel()]
    furthest = (
        [norm.float() for norm in torch._foreach_norm([part for _, part in parts], float("inf"))] if parts else []
    )
    worst = int(torch.nan_to_num(torch.stack(furthest), nan=torch.inf).argmax()) if furthest else 0
    is_away = bool(furthest) and not bool(furthest[worst] <= _LARGEST_RATIO)
    if not any_rank(is_away, [ratio for _, ratio in ratios]):
        return
    if not is_away:
        raise InputError(f"step {step}: another process holds a scale that ran away; see its message")
    name, part = parts[worst]
    factor = float(part.flatten()[part.abs().argmax()].exp())
    cause = "" if rate is None or asked is not None else f"scales learn at the optimizer's own rate, {rate:g}; "
    raise InputError(
        f"step {step}: the scale of {name} is {factor:.3g} times what it was at the start; {cause}"
        "give a smaller scale_lr, or method='ranges'"
    )
