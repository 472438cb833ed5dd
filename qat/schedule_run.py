"""A schedule in force: what is done before and after each step of the optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitwright.qat.oscillation import Oscillation, codes_of, dampening_gradient, gradient_factor
from bitwright.qat.replay import Layer, Replay
from bitwright.qat.schedule import QATSchedule
from bitwright.qat.shards import is_sharded, own_part, own_rows
from bitwright.qat.stages import Formats
from bitwright.quant.errors import InputError
from bitwright.quant.learned_steps import Grid
from bitwright.quant.plan import QuantPlan


@dataclass(frozen=True, kw_only=True)
class TrainedWeight:
    """A weight that a layer rounds: its parameter, what that is divided by at this moment, and the grid of codes.

    Where processes hold parts of the parameter, values, gradient and divisor are those of this process's part.
    """

    name: str
    parameter: nn.Parameter
    divisor: torch.Tensor
    grid: Grid

    @property
    def values(self) -> torch.Tensor:
        """Of the parameter; who writes there changes it."""
        return own_part(self.parameter.detach())

    @property
    def gradient(self) -> torch.Tensor | None:
        """Likewise."""
        return None if self.parameter.grad is None else own_part(self.parameter.grad)


class ScheduleRun:
    """Carries out a schedule on a module tree with the plan in force.

    Attributes:
        schedule: what was asked for.
        oscillations: what each weight did so far, by its tensor; empty unless weights are frozen or watched.
        watching: whether oscillations are counted although none is frozen, for whoever looks at them.
    """

    def __init__(self, schedule: QATSchedule, replay: Replay, plan: QuantPlan, examples: list[tuple[Any, ...]]) -> None:
        self.schedule, self.replay = schedule, replay
        self.formats = Formats(replay, plan, examples)
        self.oscillations: dict[str, Oscillation] = {}
        self.watching = False

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Changes the gradients of weights; to be called when the optimizer is about to step.

        Dampening has a gradient in the latent weights only, so it is added here and the user's loss stays what it is.
        """
        asked = self.schedule
        self._refuse_stages_of_shards()
        if _reached(asked.freeze_scales_after, step):
            # Without a gradient they stay; they go on asking for one, since DDP waits for each that it was given.
            for scale in self.replay.parts.quantizers.parameters():
                scale.grad = None
        strength = asked.dampening.at(step) if asked.dampening is not None else 0.0
        if not (strength or asked.gradient_scaling):
            return
        for weight in self.weights():
            gradient, values = weight.gradient, weight.values
            if gradient is None:
                continue
            if asked.gradient_scaling:
                gradient.mul_(gradient_factor(gradient, values, weight.divisor, weight.grid, asked.gradient_scaling))
            if strength:
                gradient.add_(dampening_gradient(values, weight.divisor, weight.grid), alpha=strength)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Advances to a step, counts oscillations, and puts frozen weights back."""
        self.advance(step)
        if self.schedule.freezing is not None or self.watching:
            self._follow(step)

    @torch.no_grad()
    def advance(self, step: int) -> None:
        """Formats, batch norms, observers and scales as they are at a step; twice is once."""
        asked, quantizers = self.schedule, self.replay.parts.quantizers
        if self.formats.enter(asked.stage_at(step)):
            self.oscillations.clear()  # codes of another format
        if _reached(asked.freeze_batch_norm_after, step) != self.replay.frozen:
            self.replay.freeze_batch_norm(not self.replay.frozen)  # an earlier checkpoint may have been loaded
        for _, quantizer in quantizers.named():
            quantizer.observing = not (quantizer.learned or _reached(asked.freeze_observers_after, step))
            quantizer.stochastic = step < asked.stochastic_rounding_until

    def _follow(self, step: int) -> None:
        asked = self.schedule.freezing
        for weight in self.weights():
            codes = codes_of(weight.values, weight.divisor, weight.grid)
            seen = self.oscillations.get(weight.name)
            if seen is None:
                self.oscillations[weight.name] = Oscillation.start(codes)
                continue
            # What is frozen stays whatever the optimizer did to it: momentum and weight decay move it, too.
            kept = torch.where(seen.frozen, seen.codes, codes)
            seen.follow(kept, asked.momentum if asked is not None else _WATCHED)
            if asked is not None:
                seen.freeze(asked.threshold.at(step))
                weight.values.copy_(torch.where(seen.frozen, seen.codes * weight.divisor, weight.values))

    def _refuse_stages_of_shards(self) -> None:
        layers = self.replay.parts.layers
        if self.schedule.stages and any(is_sharded(layer.module.weight) for layer in layers):  # type: ignore[arg-type]
            raise InputError(
                "schedule.stages: fully_shard has left each process a part of the weights, from which no scale can "
                "start anew; use DistributedDataParallel, or leave stages out"
            )

    def weights(self) -> Iterator[TrainedWeight]:
        """The weights of layers, each once."""
        seen: set[int] = set()
        for layer in self.replay.parts.layers:
            parameter = layer.module.weight
            if layer.folded.quantizer is None or not isinstance(parameter, nn.Parameter) or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            yield _trained(layer, parameter)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only; of a sharded model this process's part."""
        return {name: each.state_dict() for name, each in self.oscillations.items()}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Goes on at a step; the quantizers' own numbers are to be loaded behind it, in the formats of that step."""
        self.formats.enter(self.schedule.stage_at(step), restart=False)
        self.oscillations = {
            name: Oscillation(**{field: tensor.clone() for field, tensor in each.items()})
            for name, each in state.items()
        }


# Momentum of the moving averages where oscillations are only looked at: that of the paper.
_WATCHED = 0.01


def _trained(layer: Layer, parameter: nn.Parameter) -> TrainedWeight:
    quantizer = layer.folded.quantizer
    assert quantizer is not None
    divisor = layer.folded.divisor(layer.module)
    return TrainedWeight(
        name=str(layer.weight), parameter=parameter, divisor=own_rows(divisor, parameter), grid=quantizer.grid
    )


def _reached(limit: int | None, step: int) -> bool:
    return limit is not None and step >= limit
