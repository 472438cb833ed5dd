"""What happens when in quantization-aware training: plain data, handed to `QATCallback(schedule=...)`.

Steps count calls of `on_step`. Everything here is optional; the default freezes batch norms from the start and lets the
scales learn to the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bitwright.quant.errors import InputError
from bitwright.quant.formats import FORMATS


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Wider formats for the first part of the training: bits go down in steps (8 → 4).

    A tensor that is as narrow as its stage asks for already keeps its own format.

    Attributes:
        until: the step at which the next stage begins, or the formats that were asked for; scales start anew there
            with the least squared error.
        weights: the format of the weights before; None leaves theirs.
        activations: likewise.
    """

    until: int
    weights: str | None = None
    activations: str | None = None

    def __post_init__(self) -> None:
        _at_least("stages.until", self.until, 1)
        if self.weights is None and self.activations is None:
            raise InputError("schedule.stages: a stage names the format of its weights, of its activations, or both")
        for name in (self.weights, self.activations):
            if name is not None and name not in FORMATS:
                raise InputError(f"schedule.stages: unknown number format {name!r}; there are: {', '.join(FORMATS)}")


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A number that goes from one value to another along half a cosine, between two steps.

    `value(t) = last + (first - last) * (1 + cos(pi * p)) / 2`, `p = (t - begin) / (end - begin)` clamped to [0, 1].
    """

    first: float
    last: float
    begin: int = 0
    end: int = 1

    def __post_init__(self) -> None:
        if self.begin >= self.end:
            raise InputError(f"schedule: a ramp from step {self.begin} to step {self.end}; begin must lie before end")

    def at(self, step: int) -> float:
        """The value at a step."""
        part = min(1.0, max(0.0, (step - self.begin) / (self.end - self.begin)))
        return self.last + (self.first - self.last) * (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True, kw_only=True)
class Freezing:
    """Weights that oscillate between two codes stop there (Nagel et al. 2022, algorithm 1).

    Attributes:
        threshold: the share of steps in which a weight turns back; above it, it is frozen.
        momentum: of the moving average that counts them, `m` of the paper.
    """

    threshold: Ramp
    momentum: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.momentum < 1:
            raise InputError(f"schedule.freezing.momentum = {self.momentum}; allowed: 0 < momentum < 1")


@dataclass(frozen=True, kw_only=True)
class QATSchedule:
    """When what changes.

    Attributes:
        freeze_batch_norm_after: the step after which batch norms keep their statistics and count as folded; 0 from
            the start, None never before `finish`.
        freeze_observers_after: the step after which ranges that do not learn stay; None never.
        freeze_scales_after: the step after which learned scales stay where they are; None never.
        scale_lr: the learning rate of the scales, as a share of a scale per step for Adam; the optimizer's own by
            default. Under a scheduler, both keep their ratio.
        stages: formats before those that were asked for, in the order of their steps.
        dampening: the weight of the pull of each weight towards the middle of its code (Nagel et al. 2022, section
            4.1), which grows in the paper from 0: `Ramp(first=0, last=1e-3, end=steps)`.
        freezing: stops weights that oscillate.
        gradient_scaling: `delta` of element-wise gradient scaling (Lee et al. 2021, Network Quantization with
            Element-wise Gradient Scaling), for weights, in codes: gradients that push a weight on across a
            code's border are longer by `delta` times its distance from the middle of the code. 0 is straight-through.
        stochastic_rounding_until: until this step, training rounds weights up or down by chance, up with the
            probability of what is cut off, so that the rounded weight is right on average.
    """

    freeze_batch_norm_after: int | None = 0
    freeze_observers_after: int | None = None
    freeze_scales_after: int | None = None
    scale_lr: float | None = None
    stages: tuple[Stage, ...] = ()
    dampening: Ramp | None = None
    freezing: Freezing | None = None
    gradient_scaling: float = 0.0
    stochastic_rounding_until: int = 0

    def __post_init__(self) -> None:
        for name in ("freeze_batch_norm_after", "freeze_observers_after", "freeze_scales_after"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 0)
        _at_least("stochastic_rounding_until", self.stochastic_rounding_until, 0)
        if self.scale_lr is not None and not 0 <= self.scale_lr < 1:
            raise InputError(
                f"schedule.scale_lr = {self.scale_lr}; allowed: 0 <= scale_lr < 1, the share of a scale that a step "
                "may move it by"
            )
        if not 0 <= self.gradient_scaling <= 1:
            raise InputError(f"schedule.gradient_scaling = {self.gradient_scaling}; allowed: 0 to 1")
        ends = [stage.until for stage in self.stages]
        if ends != sorted(set(ends)):
            raise InputError(f"schedule.stages end at steps {ends}; each must end behind the one before it")

    def stage_at(self, step: int) -> Stage | None:
        """The stage that a step belongs to; None behind the last."""
        return next((stage for stage in self.stages if step < stage.until), None)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"schedule.{name} = {value}; allowed: {least} and more steps")
