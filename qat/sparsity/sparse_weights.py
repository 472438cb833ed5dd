"""Weights of a pattern, kept through the user's own training loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitwright.qat.checks import check_trains
from bitwright.qat.sparsity.assignment import assign, parsed, spelled
from bitwright.qat.sparsity.held import check_free, hold, release
from bitwright.qat.sparsity.patterns import cubic
from bitwright.qat.sparsity.permutation import Exchange, permute_channels
from bitwright.quant.errors import InputError

_FORMAT = "bitwright-sparsity/2"


@dataclass(frozen=True, kw_only=True)
class SparsityReport:
    """What became of the weights.

    Attributes:
        pattern: as given; of several "2:4 and 16x1".
        patterns: that of each weight.
        zeros: the share of zeros of each weight that has it.
        dense: why the others do not.
        exchanged: groups of channels that changed places for it.
    """

    pattern: str
    patterns: Mapping[str, str]
    zeros: Mapping[str, float]
    dense: Mapping[str, str]
    exchanged: tuple[Exchange, ...]


class Sparsity:
    """Trains a network whose weights keep a pattern of zeros, inside the loop that is already there.

        sparsity = Sparsity(model, optimizer, pattern="2:4", example=(picture,))
        for step, batch in enumerate(loader): ...; optimizer.step(); sparsity.on_step()
        report = sparsity.finish()

    `forward` always sees weights with their zeros. The optimizer updates the dense ones behind them: the gradient goes
    straight through the zeros, and what is dropped decays, so that the choice settles (SR-STE, Zhou et al. 2021, eq. 9:
    `g + λ (1 - mask) w`). So a dropped weight that would be needed comes back. Nothing is added to the model; a
    `QATCallback` may be attached to it, after this one: zeros stay the code of zero.

    Args:
        model: the network, usually trained already.
        optimizer: of its parameters.
        pattern: `"2:4"`, or blocks as `"16x1"`: outputs by inputs. Or a pattern for the layers of each of several
            modules, by their paths (`{"stem": "2:4", "stages.3": "16x1"}`): the innermost counts, other layers stay
            dense.
        share: of blocks that are zero at the end.
        example: arguments of `forward`; given, input channels first change places so that N:M drops less.
        skip: paths of modules whose weights stay dense.
        begin: the step at which zeros begin.
        end: the step at which the pattern is complete; in between along a cubic (Zhu & Gupta 2017). By default at once.
        freeze_after: the step after which the choice of weights stays; None never before `finish`. In a short training
            of a network that is trained already, 0 leaves most: with 128 steps on digits, half the divergence from the
            dense network that a choice growing over half of them leaves (0.0039 against 0.0069, validation samples).
        decay: λ.

    Attributes:
        step: how often `on_step` was called.
        patterns: of each weight that has one.

    Raises:
        InputError: no weight can have the pattern, the optimizer trains another model, or something makes this one
            smaller already.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        pattern: str | Mapping[str, str] = "2:4",
        share: float | None = None,
        example: tuple[Any, ...] | None = None,
        skip: Collection[str] = (),
        begin: int = 0,
        end: int = 0,
        freeze_after: int | None = None,
        decay: float = 2e-4,
    ) -> None:
        check_trains(optimizer, model)
        check_free(model)
        asked = parsed(pattern, share)
        self.model, self.pattern = model, spelled(asked)
        self.begin, self.end, self.freeze_after, self.decay = begin, end, freeze_after, decay
        self.step = 0
        assigned = assign(model, asked, skip)
        self.weights, self.patterns, self.dense_reasons = assigned.weights, assigned.patterns, assigned.dense
        self.exchanged: tuple[Exchange, ...] = ()
        if example is not None and any(each.m for each in self.patterns.values()):
            self.exchanged = permute_channels(model, example, self.patterns, optimizer=optimizer)
        self._dense = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._masks: dict[str, torch.Tensor] = {}
        self._choose()
        self._hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._before_step()),
            optimizer.register_step_post_hook(lambda *_: self._after_step()),
        ]
        hold(model, self)

    def on_step(self) -> None:
        """To be called after each step of the optimizer: advances the schedule."""
        self.step += 1
        if self.freeze_after is None or self.step <= self.freeze_after:
            self._choose()

    @torch.no_grad()
    def _choose(self) -> None:
        progress = cubic(self.step, self.begin, self.end)
        for name, dense in self._dense.items():
            self._masks[name] = self.patterns[name].keeps(dense, progress)
        self._hide()

    @torch.no_grad()
    def _hide(self) -> None:
        for name, weight in self.weights.items():
            weight.copy_(self._dense[name] * self._masks[name])

    @torch.no_grad()
    def _before_step(self) -> None:
        """The optimizer gets the dense weights, and a pull of the dropped ones towards zero."""
        for name, weight in self.weights.items():
            # What stays may have been set by somebody else (an oscillating weight that is held).
            weight.copy_(torch.where(self._masks[name], weight, self._dense[name]))
            if weight.grad is not None:
                weight.grad.add_(weight * ~self._masks[name], alpha=self.decay)

    @torch.no_grad()
    def _after_step(self) -> None:
        for name, weight in self.weights.items():
            self._dense[name].copy_(weight)
        self._hide()

    def finish(self) -> SparsityReport:
        """Ends the training: the model keeps its zeros, nothing hangs on the optimizer any more.

        Raises:
            InputError: the schedule has not come to its end.
        """
        if self.step < self.end:
            raise InputError(f"step {self.step}: the pattern is complete at step {self.end}; train on, or give end=")
        for hook in self._hooks:
            hook.remove()
        release(self.model)
        zeros = {name: float((weight == 0).float().mean()) for name, weight in self.weights.items()}
        return SparsityReport(
            pattern=self.pattern,
            patterns={name: str(each) for name, each in self.patterns.items()},
            zeros=zeros,
            dense=dict(self.dense_reasons),
            exchanged=self.exchanged,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the model's and the optimizer's own: tensors and plain values only."""
        return {
            "format": _FORMAT,
            "pattern": self.pattern,
            "patterns": {name: str(each) for name, each in self.patterns.items()},
            "step": self.step,
            "dense": {name: dense.clone() for name, dense in self._dense.items()},
            "masks": dict(self._masks),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a checkpoint.

        Raises:
            InputError: it is none of ours, or of another pattern or network; nothing is changed then.
        """
        if state.get("format") != _FORMAT:
            raise InputError(f"this is no checkpoint of Sparsity: format = {state.get('format')!r}, not {_FORMAT!r}")
        shapes = {name: tuple(dense.shape) for name, dense in state["dense"].items()}
        own = {name: tuple(weight.shape) for name, weight in self.weights.items()}
        if state["patterns"] != {name: str(each) for name, each in self.patterns.items()} or shapes != own:
            raise InputError(
                f"the checkpoint is of pattern {state['pattern']} or of another network; this is {self.pattern}"
            )
        with torch.no_grad():
            for name, dense in state["dense"].items():
                self._dense[name].copy_(dense)
        self._masks = dict(state["masks"])
        self.step = int(state["step"])
        self._hide()
