"""AdamW under one cycle of the learning rate, for shared weights and for networks of their own alike."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(
    parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float, steps: int
) -> tuple[torch.optim.Optimizer, OneCycleLR]:
    """The rate rises from a tenth over a quarter of the steps and falls to nearly 0 (Smith & Topin 2019).

    Args:
        parameters: what is trained.
        lr: the highest rate.
        weight_decay: of AdamW.
        steps: in all.
    """
    total = max(steps, 5)  # of four steps a quarter is one, and OneCycleLR divides by what is left of it, 0
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    return optimizer, OneCycleLR(
        optimizer,
        max_lr=lr,
        total_steps=total,
        pct_start=0.25,
        div_factor=10,
        final_div_factor=100,
        cycle_momentum=False,
    )
