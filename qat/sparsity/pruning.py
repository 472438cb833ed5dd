"""Channels leave during training, inside the user's own loop, until the network costs what was asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitwright.qat.checks import check_attachable, check_trains
from bitwright.qat.shards import ranks
from bitwright.qat.sparsity.choice import Cost, choose, kept_channels
from bitwright.qat.sparsity.held import check_free, hold, release
from bitwright.qat.sparsity.importance import MEASURES
from bitwright.qat.sparsity.in_place import remove_units
from bitwright.qat.sparsity.patterns import cubic
from bitwright.qat.sparsity.removal import Removable, removable, remove
from bitwright.quant.capture import capture
from bitwright.quant.channel_graph import channel_graph
from bitwright.quant.errors import InputError

_FORMAT = "bitwright-pruning/1"


@dataclass(frozen=True, kw_only=True)
class PruningReport:
    """What became of a network.

    Attributes:
        before: its cost, in the unit of the cost function.
        after: likewise.
        channels: how many channels each group had and has, by name.
        refused: what could not shrink, and why.
    """

    before: float
    after: float
    channels: Mapping[str, tuple[int, int]]
    refused: Mapping[str, str]


class Pruning:
    """Makes a network smaller while it trains, inside the loop that is already there.

        pruning = Pruning(model, optimizer, example=(picture,), cost=latency_ms, target=0.6, end=len(loader))
        for step, batch in enumerate(loader): ...; optimizer.step(); pruning.on_step()
        report = pruning.finish()

    Channels are taken out of the model's own parameters (the same objects, and what the optimizer remembers of them),
    so that every step after is cheaper; `forward` is not touched. Each removal is proven on `example`. Attach a
    `QATCallback` after `finish`, on the network as it is then.

    Args:
        model: the network, usually trained already.
        optimizer: of its parameters.
        example: arguments of `forward`.
        cost: of a network by its shapes (batch norms not folded), in any unit, such as a predicted latency in ms.
        target: what the cost is to become, as a share of what it is.
        importance: `"taylor"` (change of the loss), `"norm"` or `"gamma"`.
        multiple: channels stay in multiples of it, as kernels like them.
        begin: the first step after which channels leave; before it importance is gathered.
        end: the step at which the target is reached; in between along a cubic (Zhu & Gupta 2017).
        every: steps between removals.
        skip: names of groups that stay (see `removable`).
        copies: of the model, as an exponential average keeps one (`ema.module`): they become as small with it.

    Attributes:
        step: how often `on_step` was called.

    Raises:
        InputError: nothing can be taken out: says why; or what cannot be trained.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        example: tuple[Any, ...],
        cost: Cost,
        target: float,
        end: int,
        begin: int = 0,
        every: int = 20,
        importance: str = "taylor",
        multiple: int = 8,
        skip: Collection[str] = (),
        copies: Collection[nn.Module] = (),
    ) -> None:
        check_attachable(model)
        check_trains(optimizer, model)
        check_free(model)
        _check_alone()
        check_copies(copies, model)
        if not 0 < target < 1 or not 0 <= begin < end or every < 1 or importance not in MEASURES:
            raise InputError(
                f"target = {target}, begin = {begin}, end = {end}, every = {every}, importance = {importance!r}: give "
                f"0 < target < 1, 0 <= begin < end, every >= 1 and one of {', '.join(MEASURES)}"
            )
        self.model, self.optimizer, self.example, self.cost = model, optimizer, example, cost
        self.target, self.begin, self.end, self.every = target, begin, end, every
        self.importance, self.multiple, self.copies = importance, multiple, tuple(copies)
        self.step = 0
        self.removed: list[list[int]] = []
        self.found = self._shrinkable(skip)
        self._proven = [group.name for group in self.found.groups]
        self._sizes = kept_channels(self.found.groups, ())
        self.before = self.now = cost(self.found.channels.smaller(()))
        self._seen: dict[str, torch.Tensor] = {}
        self._hook = optimizer.register_step_pre_hook(lambda *_: self._look())
        hold(model, self)

    def _shrinkable(self, skip: Collection[str]) -> Removable:
        found = removable(self.model, self.example)
        unknown = set(skip) - {group.name for group in found.channels.groups}
        if unknown:
            names = ", ".join(group.name for group in found.channels.groups)
            raise InputError(f"skip = {sorted(unknown)}: no such groups; there are: {names}")
        groups = tuple(group for group in found.groups if group.name not in skip)
        if not groups:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(found.refused.items())[:3])
            raise InputError(f"no channels of this model can be taken out: {reasons or 'all are skipped'}")
        return Removable(captured=found.captured, channels=found.channels, groups=groups, refused=found.refused)

    def _look(self) -> None:
        """Gathers importance from the gradients of this step."""
        measured = MEASURES[self.importance](self.model, self.found.channels, self.found.groups)
        for name, values in measured.items():
            self._seen[name] = self._seen[name] + values if name in self._seen else values

    def on_step(self) -> None:
        """To be called after each step of the optimizer: takes channels out when it is time.

        Raises:
            InputError: the target is out of reach, or a removal is not what was proven; the model is as it was.
        """
        self.step += 1
        due = self.begin < self.step <= self.end and ((self.step - self.begin) % self.every == 0)
        if due or self.step == self.end:
            self._shrink(1 - (1 - self.target) * cubic(self.step, self.begin, self.end))

    def _shrink(self, share: float) -> None:
        # Squares of changes were gathered; their root adds up over channels as a change of the loss does.
        importance = {name: values.sqrt() for name, values in self._seen.items()}
        found = self.found
        choice = choose(
            found.channels, found.groups, importance, self.cost, share * self.before, multiple=self.multiple
        )
        if not choice.removed:
            return
        remove(self.model, found, choice.removed, self.example, optimizer=self.optimizer)
        for copy in self.copies:
            remove_units(copy, found.channels, choice.removed)
        self.removed.append(sorted(choice.removed))
        self._look_anew()

    def _look_anew(self) -> None:
        """The graph of the network as it is now; what shrank once can shrink again."""
        captured = capture(self.model, self.example)
        channels = channel_graph(captured.graph)
        groups = tuple(group for group in channels.groups if group.name in self._proven)
        self.found = Removable(captured=captured, channels=channels, groups=groups, refused=self.found.refused)
        self.now = self.cost(channels.smaller(()))
        self._seen = {}

    def finish(self) -> PruningReport:
        """Ends the pruning; the model stays as small as it is.

        Raises:
            InputError: the schedule has not come to its end.
        """
        if self.step < self.end:
            raise InputError(f"step {self.step}: the target is reached at step {self.end}; train on, or give end=")
        self._hook.remove()
        release(self.model)
        now = kept_channels(self.found.groups, ())
        sizes = {name: (before, now.get(name, 1)) for name, before in self._sizes.items()}
        return PruningReport(before=self.before, after=self.now, channels=sizes, refused=self.found.refused)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the model's and the optimizer's own."""
        return {
            "format": _FORMAT,
            "step": self.step,
            "removed": [list(units) for units in self.removed],
            "seen": dict(self._seen),
            "sizes": dict(self._sizes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes a fresh model as small as that of the checkpoint; load the model's and the optimizer's states after it.

        Raises:
            InputError: the checkpoint is none of ours or of another network, or the model was made smaller already.
        """
        if state.get("format") != _FORMAT:
            raise InputError(f"this is no checkpoint of Pruning: format = {state.get('format')!r}, not {_FORMAT!r}")
        if self.removed or state["sizes"] != self._sizes:
            raise InputError("the checkpoint is of another network; build the model anew as it was before pruning")
        for units in state["removed"]:
            remove_units(self.model, self.found.channels, units, optimizer=self.optimizer)
            for copy in self.copies:
                remove_units(copy, self.found.channels, units)
            self.removed.append(list(units))
            self._look_anew()
        self._seen = dict(state["seen"])
        self.step = int(state["step"])


def _check_alone() -> None:
    if ranks() > 1:
        raise InputError(
            f"{ranks()} processes train together, and what averages their gradients knows the shapes of the start; "
            "take channels out in one process, then train the smaller network on in several"
        )


def check_copies(copies: Collection[nn.Module], model: nn.Module) -> None:
    """Refuses copies that could not become smaller with the model.

    Raises:
        InputError: names the first parameter that one does not have.
    """
    for place, copy in enumerate(copies):
        shapes = {name: each.shape for name, each in copy.named_parameters()}
        for name, parameter in model.named_parameters():
            if shapes.get(name) != parameter.shape:
                raise InputError(
                    f"copies[{place}] is no copy of the model: it has no parameter {name} of shape "
                    f"{list(parameter.shape)}; of an AveragedModel give its .module"
                )
