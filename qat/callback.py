"""Quantization-aware training in three lines of the user's own loop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from bitwright.hw_constraints.target import Target, load_target
from bitwright.qat.batches import ToArguments, default_arguments, first_samples, rows
from bitwright.qat.checks import check_attachable, check_optimizer, check_scales, refuse_broken_gradients
from bitwright.qat.deploy import deployed_model, differences
from bitwright.qat.prepare import prepare
from bitwright.qat.replay import Replay
from bitwright.qat.schedule import QATSchedule
from bitwright.qat.schedule_run import ScheduleRun
from bitwright.qat.warm_start import warm_start
from bitwright.quant.calibrate import calibrate
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import EXPORTERS, Exporter
from bitwright.quant.formats import get_format
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QParamsSpec, QuantScheme
from bitwright.quant.weights import weight_qparams

# Samples on which the trained module and the quantized network are compared at the end.
_PROOFS = 8
_FORMAT = "bitwright-qat/1"


class QATCallback:
    """Trains a network in the number formats of its target, inside the loop that is already there.

        qat = QATCallback(model, optimizer, target="ethos-u85-1024", calibration=loader)
        for step, batch in enumerate(loader): ...; optimizer.step(); qat.on_step()
        artefact = qat.finish()

    Attach it before a learning-rate scheduler is made and before the model is wrapped (`DistributedDataParallel`,
    `torch.compile`). The model keeps its module names and parameters; the scales join the optimizer as a group of
    their own without weight decay. In eval mode the model computes what the artefact will, bit for bit.

    What works for a network that is trained already: a few epochs of AdamW at a learning rate of 5e-4 falling along a
    cosine, `distillation_loss` from a copy of the float network in place of the labels, batch norms frozen from the
    start.

    Args:
        model: the network in float, usually trained already.
        optimizer: of the model's parameters; None when `param_groups()` is given to one by hand.
        calibration: batches as the training loop's; the first `calibration_samples` samples start the scales.
        target: an accelerator's name or file; or `scheme`.
        scheme: what to quantize and how, in place of a target's.
        weights: a number format for all weights that replaces the scheme's, such as `"int4"`; its scales start where
            the squared error is least.
        activations: likewise for activations; the observer stays.
        arguments: takes a batch and returns `forward`'s arguments; by default its first element, without labels.
        calibration_samples: how many samples start the scales.
        learn_scales: train the scales (LSQ); otherwise they follow moving ranges.
        schedule: what happens when: batch norms and observers that freeze, formats that get narrower, weights that
            oscillate; see `QATSchedule`.

    Attributes:
        step: how often `on_step` was called.
        quant_plan: what is quantized, and how, at the end of the schedule.

    Raises:
        InputError: what cannot be trained, and why: see the message.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        *,
        calibration: Iterable[Any],
        target: str | Path | None = None,
        scheme: QuantScheme | None = None,
        weights: str | None = None,
        activations: str | None = None,
        arguments: ToArguments | None = None,
        calibration_samples: int = 200,
        learn_scales: bool = True,
        schedule: QATSchedule | None = None,
    ) -> None:
        check_attachable(model)
        if optimizer is not None:
            check_optimizer(optimizer, model)
        self.model, self.optimizer = model, optimizer
        self.target = _target(target, scheme)
        self.learn_scales = learn_scales
        schedule = schedule or QATSchedule()
        self.scale_lr = schedule.scale_lr
        self.step = 0
        asked = scheme if scheme is not None else self.target.scheme()  # type: ignore[union-attr]
        asked = with_formats(asked, weights=weights, activations=activations)
        read = arguments or default_arguments(model)
        samples = list(first_samples(calibration, read, calibration_samples))
        self.examples = [row for batch in samples[:_PROOFS] for row in rows(batch, _PROOFS)][:_PROOFS]
        self.replay = self._prepared(asked, samples)
        self.scheduled = ScheduleRun(schedule, self.replay, self.quant_plan, self.examples)
        self._group = self._add_scales()
        self._hook = None if optimizer is None else optimizer.register_step_pre_hook(lambda *_: self.before_step())
        self.replay.attach()
        self.scheduled.advance(0)

    def _prepared(self, scheme: QuantScheme, samples: list[tuple[Any, ...]]) -> Replay:
        captured = capture(self.model, self.examples[0])
        folded = fold_batch_norm(captured, trains_on=True)
        self.quant_plan = plan(folded.graph, scheme)
        if not self.quant_plan.weights:
            reasons = sorted(set(self.quant_plan.kept_float.values()))
            raise InputError(f"scheme {scheme.name!r} quantizes no layer of this model: {'; '.join(reasons)}")
        _check_trainable(self.quant_plan)
        activations = calibrate(folded, self.quant_plan, samples).qparams
        qparams = {**activations, **weight_qparams(folded.graph, self.quant_plan, activations)}
        parts = prepare(
            self.model, captured, folded, self.quant_plan, qparams, self.examples[0], learned=self.learn_scales
        )
        device = next(self.model.parameters()).device
        parts.quantizers.to(device)
        return Replay(self.model, parts)

    def param_groups(self) -> list[dict[str, Any]]:
        """The scales as groups for an optimizer: no weight decay, and a learning rate of their own if one was given."""
        scales = [q.log_ratio for _, q in self.replay.parts.quantizers.named() if q.learned]
        if not scales:
            return []
        group: dict[str, Any] = {"params": scales, "weight_decay": 0.0}
        if self.scale_lr is not None:
            group["lr"] = self.scale_lr
        return [group]

    def _add_scales(self) -> dict[str, Any] | None:
        if self.optimizer is None or not self.param_groups():
            return None
        (group,) = self.param_groups()
        own = self.optimizer.param_groups[0]["lr"]
        group["lr_scale"] = group.setdefault("lr", own) / own if own else 1.0
        self.optimizer.add_param_group(group)
        return self.optimizer.param_groups[-1]

    def on_step(self) -> None:
        """To be called after each step of the optimizer: advances the schedule.

        Raises:
            InputError: a scale has collapsed or is no longer finite; says which and what helps.
        """
        self.step += 1
        check_scales(self.replay.parts.quantizers, self.step)
        self.scheduled.after_step(self.step)

    def before_step(self) -> None:
        """What the schedule does to gradients; without an optimizer to hook into, to be called before it steps.

        Raises:
            InputError: a gradient is not finite; the weights are as they were.
        """
        refuse_broken_gradients(self.replay.parts.quantizers, self.step)
        self.scheduled.before_step(self.step)

    def warm_start(self, quantized: QuantizedModel, unrounded: QuantizedModel | None = None) -> None:
        """Begins where quantizing after training ended, with its weights, biases and scales; see `warm_start`."""
        warm_start(self.replay, quantized, unrounded)

    def quantized(self) -> QuantizedModel:
        """The network as it stands, ready to be evaluated or exported; training can go on.

        Raises:
            InputError: the trained module and its simulation do not compute the same codes; names the first tensor.
        """
        self.replay.detach()
        try:
            result = deployed_model(self.model, self.replay.parts, self.scheduled.formats.plan, self.examples[0])
        finally:
            self.replay.attach()
        for args in self.examples:
            self._prove(result, args)
        return result

    def _prove(self, result: QuantizedModel, args: tuple[Any, ...]) -> None:
        found = differences(self.replay, result, args)
        if found:
            first = found[0]
            node = result.captured.graph.producers.get(first.ref)
            where = f" ({node.source})" if node and node.source else ""
            raise InputError(
                f"the trained module and the quantized network differ from {first.ref}{where} on: "
                f"{first.differing} of {first.elements} values; an operator whose result is not used by the name it "
                "returns (x.relu_() as a statement), or a module called with other arguments than at the start"
            )

    def finish(self, path: str | Path | None = None) -> QuantizedModel:
        """Ends the training: the quantized network, proven to compute the same codes as the trained module.

        The user's model is a float network again afterwards, with the trained weights and without anything added; the
        optimizer loses the group of the scales.

        Args:
            path: where the artefact for the target's toolchain is written; None writes nothing.

        Raises:
            InputError: see `quantized`; or the target's artefact has no exporter.
        """
        export = self._exporter() if path is not None else None
        result = self.quantized()
        self.replay.detach()
        if self._hook is not None:
            self._hook.remove()
        if self.optimizer is not None and self._group is not None:
            groups = self.optimizer.param_groups
            groups[:] = [group for group in groups if group is not self._group]
            for scale in self._group["params"]:
                self.optimizer.state.pop(scale, None)
        if export is not None and path is not None:
            export.write(result, Path(path))
        return result

    def _exporter(self) -> Exporter:
        wanted = self.target.artifact.format if self.target is not None else "onnx_qdq"
        if wanted not in EXPORTERS.names():
            known = ", ".join(EXPORTERS.names())
            name = self.target.id if self.target is not None else ""
            raise InputError(
                f"the toolchain of {name!r} reads {wanted}, which has no exporter here (there are: {known}); "
                "call finish() without a path and write its result with an exporter of your choice"
            )
        exporter: Exporter = EXPORTERS.load(wanted)
        return exporter

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the model's and the optimizer's own: tensors and plain values only."""
        return {
            "format": _FORMAT,
            "plan": self._fingerprint(),
            "step": self.step,
            "schedule": self.scheduled.state_dict(),
            "quantizers": self.replay.parts.quantizers.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a checkpoint of the same model and scheme.

        Raises:
            InputError: the checkpoint is none of ours, or was made with another plan; nothing is changed then.
        """
        if state.get("format") != _FORMAT:
            raise InputError(
                f"this is no checkpoint of a QATCallback: format = {state.get('format')!r}, not {_FORMAT!r}"
            )
        if state["plan"] != self._fingerprint():
            raise InputError("the checkpoint was made with another scheme or another network; give the same ones")
        self.step = int(state["step"])
        self.scheduled.load_state_dict(state["schedule"], self.step)
        self.replay.parts.quantizers.load_state_dict(state["quantizers"])
        self.scheduled.advance(self.step)

    def _fingerprint(self) -> str:
        specs = {**self.quant_plan.activations, **self.quant_plan.weights}
        lines = [f"{ref} {spec}" for ref, spec in sorted(specs.items())]
        groups = sorted(str(sorted(map(str, group))) for group in self.quant_plan.groups)
        return hashlib.sha256("\n".join([*lines, *groups]).encode()).hexdigest()


def _check_trainable(plan: QuantPlan) -> None:
    """Training has a step of its own for a tensor or a channel, not for a block, nor one that follows the data."""
    for ref, spec in {**plan.activations, **plan.weights}.items():
        if spec.dynamic or spec.block_size:
            kind = "dynamic" if spec.dynamic else "per_block"
            raise InputError(
                f"tensor {ref}: its scale is {kind}; QAT trains scales per_tensor and per_channel: "
                "name such a granularity in the scheme, or quantize after training"
            )


def _target(target: str | Path | None, scheme: QuantScheme | None) -> Target | None:
    if (target is None) == (scheme is None):
        raise InputError("give either target or scheme, not both or neither")
    return None if target is None else load_target(target)


def with_formats(scheme: QuantScheme, *, weights: str | None = None, activations: str | None = None) -> QuantScheme:
    """The scheme with other number formats.

    Weights then start from the scale of least squared error: below 8 bits the whole range is far from it.

    Raises:
        InputError: there is no such format.
    """

    def changed(spec: QParamsSpec, name: str, observer: str) -> QParamsSpec:
        try:
            return replace(spec, format=get_format(name), observer=observer)
        except ValueError as error:
            raise InputError(str(error)) from error

    if weights is not None:
        own = {op: changed(spec, weights, "mse") for op, spec in scheme.operator_weights.items()}
        scheme = replace(
            scheme, weights=changed(scheme.weights, weights, "mse"), operator_weights=MappingProxyType(own)
        )
    if activations is not None:
        scheme = replace(scheme, activations=changed(scheme.activations, activations, scheme.activations.observer))
    return scheme
