"""Scales in an optimizer: as a group of their own, or apart from the user's group for as long as a step takes.

An optimizer that is made behind the callback, from `model.parameters()`, holds the scales among the weights, and its
weight decay would pull each towards where it started. A group that is added then would come too late for learning-rate
schedulers and would change what checkpoints look like. So the scales leave their group when a step begins and are back
in it, at their place, when it has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class ScalesApart:
    """Takes scales out of an optimizer's groups and puts them back.

    Args:
        lr: the scales' learning rate at the start; keeps its ratio to the group's own. None for the group's.
    """

    def __init__(self, lr: float | None) -> None:
        self.lr = lr
        self._first_lr: dict[int, float] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._whole: list[tuple[dict[str, Any], list[nn.Parameter]]] = []

    def take_out(self, optimizer: torch.optim.Optimizer, scales: Sequence[nn.Parameter]) -> None:
        """A step begins: scales among other parameters get a group without weight decay.

        A group of scales alone is the user's own choice and stays.
        """
        self.put_back()
        own, groups = {id(scale) for scale in scales}, optimizer.param_groups
        self._optimizer = optimizer
        for group in list(groups):
            parameters = group["params"]
            found = [each for each in parameters if id(each) in own]
            if not found or len(found) == len(parameters):
                continue
            if not group.get("weight_decay") and self.lr is None:
                continue
            self._whole.append((group, parameters))
            apart = {**group, "params": found, "lr": self._rate(group)}
            if "weight_decay" in group:
                apart["weight_decay"] = 0.0
            group["params"] = [each for each in parameters if id(each) not in own]
            groups.append(apart)

    def put_back(self) -> None:
        """The step has ended, or never did: groups are as the user made them."""
        if self._optimizer is not None and self._whole:
            del self._optimizer.param_groups[-len(self._whole) :]
            for group, parameters in self._whole:
                group["params"] = parameters
        self._whole.clear()
        self._optimizer = None

    def _rate(self, group: dict[str, Any]) -> Any:
        if self.lr is None:
            return group["lr"]
        first = self._first_lr.setdefault(id(group), float(group.get("initial_lr", group["lr"])))
        return group["lr"] * self.lr / first if first else self.lr
