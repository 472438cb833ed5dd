"""Formats that change while a network trains: bits go down, and scales start anew where the squared error is least."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bitwright.qat.locate import undisturbed
from bitwright.qat.quantizer import Quantizer
from bitwright.qat.replay import Replay
from bitwright.qat.schedule import Stage
from bitwright.quant.formats import NumberFormat, get_format
from bitwright.quant.graph import TensorRef
from bitwright.quant.observers.mse import MSEObserver
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.scheme import QParamsSpec

_RESTART = "mse"


class Formats:
    """The formats that are in force, beside those that were asked for.

    Args:
        replay: the plan in force.
        plan: in the formats that the training ends with.
        examples: arguments of `forward`; activations are looked at on these when their format changes.
    """

    def __init__(self, replay: Replay, plan: QuantPlan, examples: list[tuple[Any, ...]]) -> None:
        self.replay, self.asked, self.examples = replay, plan, examples
        self.stage: Stage | None = None

    @property
    def plan(self) -> QuantPlan:
        """The plan in the formats of this moment."""
        by_ref = self.replay.parts.by_ref
        return replace(
            self.asked,
            activations={
                ref: by_ref[ref].spec if ref in by_ref else spec for ref, spec in self.asked.activations.items()
            },
            weights={ref: by_ref[ref].spec for ref in self.asked.weights},
        )

    @torch.no_grad()
    def enter(self, stage: Stage | None, *, restart: bool = True) -> bool:
        """Changes to the formats of a stage, or to those asked for; says whether anything changed.

        Args:
            stage: None behind the last.
            restart: whether scales start anew; otherwise they are about to be loaded.
        """
        if stage == self.stage:
            return False
        self.stage = stage
        wanted = {ref: self._spec(ref, stage) for ref in self.replay.parts.by_ref}
        changed = {ref: spec for ref, spec in wanted.items() if self.replay.parts.by_ref[ref].spec != spec}
        seen = self._look(set(changed)) if restart else {}
        for layer in self.replay.parts.layers:
            if layer.weight in changed and layer.folded.quantizer is not None:
                spec = changed.pop(layer.weight)
                layer.folded.restart(layer.module, spec, observer=_RESTART if restart else None)
        for ref, spec in changed.items():
            self._restart(self.replay.parts.by_ref[ref], spec, seen.get(ref))
        return True

    def _spec(self, ref: TensorRef, stage: Stage | None) -> QParamsSpec:
        is_weight = ref not in self.asked.activations
        spec = self.asked.weights[ref] if is_weight else self.asked.activations[ref]
        name = None if stage is None else stage.weights if is_weight else stage.activations
        return spec if name is None else _wider(spec, get_format(name))

    def _look(self, refs: set[TensorRef]) -> dict[TensorRef, torch.Tensor]:
        """What flows through each tensor on the examples, rounded in the formats that are about to be left."""
        values: dict[TensorRef, list[torch.Tensor]] = {}

        def look(ref: TensorRef, tensor: torch.Tensor) -> None:
            if ref in refs:
                values.setdefault(ref, []).append(tensor.detach().flatten().float())

        self.replay.parts.tap.look = look
        try:
            with undisturbed(self.replay.model):
                for args in self.examples if refs & set(self.asked.activations) else []:
                    self.replay.model(*args)
        finally:
            self.replay.parts.tap.look = None
        return {ref: torch.cat(parts) for ref, parts in values.items()}

    def _restart(self, quantizer: Quantizer, spec: QParamsSpec, values: torch.Tensor | None) -> None:
        if values is None:  # a constant that functions read, or a tensor that no call site of the examples reached
            low, high = quantizer.qparams().range
            quantizer.assign(choose_qparams(low, high, spec, axis=quantizer.axis))
            return
        observer = MSEObserver(spec)
        observer.update(values.cpu())
        low, high = (bound.to(values.device) for bound in observer.range())
        quantizer.assign(choose_qparams(low, high, spec, axis=quantizer.axis))


def _wider(spec: QParamsSpec, fmt: NumberFormat) -> QParamsSpec:
    return replace(spec, format=fmt) if fmt.bits > spec.format.bits else spec
