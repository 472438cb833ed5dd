"""How shared weights are trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SupernetSettings:
    """How shared weights are trained: AdamW under one cycle of the learning rate, in steps of several networks each.

    Attributes:
        epochs: passes over the training samples.
        lr: the highest learning rate.
        weight_decay: of AdamW.
        random: networks drawn by chance in each step, beside the largest and the smallest (`n` of the sandwich rule,
            Yu & Huang 2019, section 3.2, is two more).
        labels: the share of the labels in the loss of all networks but the largest; the rest is imitation of the
            largest. 0 is in-place distillation as published (Yu & Huang 2019, section 3.3).
        shrinking: from when to when parameters open, as shares of the training, by globs over their names
            (`{"kernel*": (0.0, 0.2), "depth*": (0.2, 0.5)}`): until the first share they keep their largest choice,
            after that ever smaller ones may be drawn too. Parameters that no glob names are open from the start.
        calibration: training batches from which a network's batch norms take their statistics before it is scored.
        seed: of the samples' order and of the networks that are drawn.
        checkpoint_every: steps between two checkpoints.
    """

    epochs: int
    lr: float = 4e-3
    weight_decay: float = 1e-2
    random: int = 2
    labels: float = 0.0
    shrinking: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    calibration: int = 4
    seed: int = 0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("random", 0), ("calibration", 1), ("checkpoint_every", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"supernet.{name} = {getattr(self, name)}; allowed: {least} and more")
        if not (0 < self.lr < math.inf and 0 <= self.weight_decay < math.inf):
            raise InputError(
                f"supernet.lr = {self.lr}, supernet.weight_decay = {self.weight_decay}; "
                "allowed: a positive rate, a decay of at least 0"
            )
        if not 0 <= self.labels <= 1:
            raise InputError(f"supernet.labels = {self.labels}; allowed: 0 (imitation alone) to 1 (labels alone)")
        for glob, (begin, end) in self.shrinking.items():
            if not 0 <= begin <= end <= 1:
                raise InputError(
                    f"supernet.shrinking: {glob!r} opens from {begin} to {end}; allowed: 0 <= begin <= end <= 1, "
                    "shares of the training"
                )
