"""Weights of a pattern, kept through the user's own training loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitwright.qat.checks import check_trains
from bitwright.qat.sparsity.held import check_free, hold, release
from bitwright.qat.sparsity.patterns import Pattern, cubic
from bitwright.qat.sparsity.permutation import Exchange, permute_channels
from bitwright.quant.errors import InputError

_FORMAT = "bitwright-sparsity/1"
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True, kw_only=True)
class SparsityReport:
    """What became of the weights.

    Attributes:
        pattern: as given.
        zeros: the share of zeros of each weight that has it.
        dense: why the others do not.
        exchanged: groups of channels that changed places for it.
    """

    pattern: str
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
        pattern: `"2:4"`, or blocks as `"16x1"`: outputs by inputs.
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

    Raises:
        InputError: no weight can have the pattern, the optimizer trains another model, or something makes this one
            smaller already.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        pattern: str = "2:4",
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
        self.model, self.pattern = model, Pattern.parse(pattern, share=share)
        self.begin, self.end, self.freeze_after, self.decay = begin, end, freeze_after, decay
        self.step = 0
        self.dense_reasons: dict[str, str] = {}
        self.weights = self._fitting(skip)
        self.exchanged: tuple[Exchange, ...] = ()
        if example is not None and self.pattern.m:
            self.exchanged = permute_channels(model, example, self.pattern, set(self.weights), optimizer=optimizer)
        self._dense = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._masks: dict[str, torch.Tensor] = {}
        self._choose()
        self._hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._before_step()),
            optimizer.register_step_post_hook(lambda *_: self._after_step()),
        ]
        hold(model, self)

    def _fitting(self, skip: Collection[str]) -> dict[str, nn.Parameter]:
        found: dict[str, nn.Parameter] = {}
        unknown = set(skip) - {name for name, _ in self.model.named_modules()}
        if unknown:
            raise InputError(f"skip names no module of this model: {', '.join(sorted(unknown))}")
        for name, module in self.model.named_modules():
            if not isinstance(module, _LAYERS):
                continue
            path = f"{name}.weight" if name else "weight"
            weight = module._parameters.get("weight")
            reason = (
                "it is skipped" if name in skip
                else "it is computed from other parameters" if weight is None
                else self.pattern.misfit(weight.shape)
            )  # fmt: skip
            if reason or weight is None:
                self.dense_reasons[path] = reason
            elif not any(weight is each for each in found.values()):
                found[path] = weight
        if not found:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self.dense_reasons.items())[:3])
            raise InputError(f"no weight can have the pattern {self.pattern}: {reasons or 'there is no layer'}")
        return found

    def on_step(self) -> None:
        """To be called after each step of the optimizer: advances the schedule."""
        self.step += 1
        if self.freeze_after is None or self.step <= self.freeze_after:
            self._choose()

    @torch.no_grad()
    def _choose(self) -> None:
        progress = cubic(self.step, self.begin, self.end)
        for name, dense in self._dense.items():
            self._masks[name] = self.pattern.keeps(dense, progress)
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
            pattern=str(self.pattern), zeros=zeros, dense=dict(self.dense_reasons), exchanged=self.exchanged
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the model's and the optimizer's own: tensors and plain values only."""
        return {
            "format": _FORMAT,
            "pattern": str(self.pattern),
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
        if state["pattern"] != str(self.pattern) or shapes != {n: tuple(w.shape) for n, w in self.weights.items()}:
            raise InputError(
                f"the checkpoint is of pattern {state['pattern']} or of another network; this is {self.pattern}"
            )
        with torch.no_grad():
            for name, dense in state["dense"].items():
                self._dense[name].copy_(dense)
        self._masks = dict(state["masks"])
        self.step = int(state["step"])
        self._hide()
