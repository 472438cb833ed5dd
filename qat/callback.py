"""Quantization-aware training in three lines of the user's own loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitwright.hw_constraints.target import Target, load_target
from bitwright.qat.batches import ToArguments, default_arguments, first_samples, rows
from bitwright.qat.checkpoint import FORMAT, random_state, read_whole, set_random_state, write_whole
from bitwright.qat.checks import check_attachable, check_optimizer, check_scales, refuse_broken_gradients
from bitwright.qat.deploy import exporter_for, prepare_place, proven_model
from bitwright.qat.distributed import check_rank_equal, plain_twin, shared_samples, start_equal, whole_twin
from bitwright.qat.methods import Method, method_named, scheme_of
from bitwright.qat.origin import origin_of_nan
from bitwright.qat.prepared import prepare_model
from bitwright.qat.quantized_regions import QuantizedRegions, proven_regions
from bitwright.qat.replay import Replay
from bitwright.qat.resume import WRONG_PLAN, fingerprint, follow_loads
from bitwright.qat.schedule import QATSchedule
from bitwright.qat.schedule_run import ScheduleRun
from bitwright.qat.scheme import with_formats
from bitwright.qat.shards import is_first, is_sharded, ranks
from bitwright.qat.stepping import Stepping
from bitwright.qat.warm_start import Networks, warm_start
from bitwright.quant.errors import InputError
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme

# Samples on which the trained module and the quantized network are compared at the end.
_PROOFS = 8
_FORMAT = "bitwright-qat/1"


class QATCallback:
    """Trains a network in the number formats of its target, inside the loop that is already there.

        qat = QATCallback(model, optimizer, target="ethos-u85-1024", calibration=loader)
        for step, batch in enumerate(loader): ...; optimizer.step(); qat.on_step()
        artefact = qat.finish()

    Attach it before a learning-rate scheduler is made and before the model is wrapped (`DistributedDataParallel`,
    `fully_shard`, `torch.compile`). The model keeps its module names and parameters; the scales join the optimizer as
    a group of their own without weight decay. In eval mode the model computes what the artefact will, bit for bit.

    All that training adds hangs in the model as `qat_quantizers`, so that the checkpoints that the loop writes of model
    and optimizer are whole: attach, then load them. Several processes share their calibration samples. An EMA copy
    is deployed by `model.load_state_dict(ema.module.state_dict())` before `finish`.

    `torch.compile`, also with inductor, comes after it and changes no code: layers in containers are compiled, while a
    module whose forward calls quantized functions (an addition, say) runs eagerly, with all inside.

    A model whose Python decides on the values of tensors is not one graph. Then its regions train, each by the plan
    that it would have after training; the rest trains in float and is named, with the line, in a warning and in
    `prepared.left_float`. Processes that take different ways through it need
    `DistributedDataParallel(…, find_unused_parameters=True)`; under `fully_shard` all take the same, or the root is
    sharded alone.

    Attention and recurrent layers are one call in the user's module and, where the scheme has their products in low
    precision, train in the parts that the plan has of them, so that they are slower than torch's own; a recurrent layer
    gets sequences of the length that it was calibrated with. An override of their operator keeps them in float.

    What works for a network that is trained already: a few epochs of AdamW at a learning rate of 5e-4 falling along a
    cosine, `distillation_loss` from a copy of the float network in place of the labels, batch norms frozen from the
    start.

    Args:
        model: the network in float, usually trained already.
        optimizer: of the model's parameters; None when it is made later, as behind `fully_shard`: by then the scales
            are among the model's parameters, where they neither decay nor lose `scale_lr`, or `param_groups()` has
            them as a group.
        calibration: batches as the training loop's; the first `calibration_samples` samples start the scales.
        target: an accelerator's name or file; or `scheme`.
        scheme: what to quantize and how, in place of a target's.
        weights: a number format for all weights that replaces the scheme's, such as `"int4"`; its scales start where
            the squared error is least.
        activations: likewise for activations; the observer stays.
        arguments: takes a batch and returns `forward`'s arguments; by default its first element, without labels.
        calibration_samples: how many samples start the scales.
        method: how scales come to their values: `lsq` by default; see `Method`.
        schedule: what happens when: batch norms and observers that freeze, formats that get narrower, weights that
            oscillate; see `QATSchedule`.

    Attributes:
        step: how many steps it has trained.
        prepared: what trains in low precision, in one piece or in regions, and what does not and why.
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
        method: str = Method.LSQ,
        schedule: QATSchedule | None = None,
    ) -> None:
        check_attachable(model)
        if optimizer is not None:
            check_optimizer(optimizer, model)
        self.model, self.optimizer = model, optimizer
        self.target = _target(target, scheme)
        self.method = method_named(method)
        schedule = schedule or QATSchedule()
        self.scale_lr = schedule.scale_lr
        asked = scheme if scheme is not None else self.target.scheme()  # type: ignore[union-attr]
        asked = scheme_of(self.method, with_formats(asked, weights=weights, activations=activations))
        read = arguments or default_arguments(model)
        samples = list(first_samples(calibration, read, calibration_samples))
        samples = shared_samples(samples, calibration_samples)
        start_equal(model.state_dict().values())
        self.examples = [row for batch in samples[:_PROOFS] for row in rows(batch, _PROOFS)][:_PROOFS]
        self.prepared = prepare_model(model, asked, samples, self.examples, self.method)
        if not self.prepared.is_whole:
            warnings.warn(str(self.prepared), stacklevel=2)
        self.quant_plan = self.prepared.plan
        self.prepared.parts.quantizers.to(next(model.parameters()).device)
        self.replay = Replay(model, self.prepared.parts)
        self._twin = plain_twin(model, self.replay.parts) if ranks() > 1 else None
        self.scheduled = ScheduleRun(schedule, self.replay, self.quant_plan, self.examples)
        self._group = self._add_scales()
        self._stepping = Stepping(self, optimizer)
        quantizers = self.replay.parts.quantizers
        quantizers.plan.copy_(torch.frombuffer(bytearray(fingerprint(self.quant_plan)), dtype=torch.uint8))
        self._loads = follow_loads(model, quantizers, self, quantizers.plan.clone())
        self.replay.attach()
        self.scheduled.advance(0)

    @property
    def step(self) -> int:
        """How many steps it has trained."""
        return self._stepping.step

    def param_groups(self) -> list[dict[str, Any]]:
        """The scales as groups for an optimizer: no weight decay, and a learning rate of their own if one was given."""
        scales = [each for _, q in self.replay.parts.quantizers.named() if q.learned for each in q.parameters()]
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

        The optimizer's own hook has counted the step already, unless there was none to count, as when a `GradScaler`
        skips it; so a loop may also leave the call out.

        Raises:
            InputError: a scale has collapsed or is no longer finite; says which and what helps. Or `finish` has ended
                the training.
        """
        self._refuse_ended("on_step")
        self._stepping.asked()

    def _refuse_ended(self, what: str) -> None:
        if not self.replay.is_attached:
            raise InputError(
                f"{what}() behind finish(): the model is a float network again; attach another QATCallback to train on"
            )

    def before_step(self) -> None:
        """What the schedule does to gradients; the optimizer's hook calls it when the optimizer is about to step.

        Raises:
            InputError: a gradient is not finite, with the layer where that began; the weights are as they were.
        """
        refuse_broken_gradients(self.replay.parts, self.step, self._origin)
        self.replay.parts.quantizers.bound_gradients()
        self.scheduled.before_step(self.step)

    def after_step(self, step: int) -> None:
        """What is due once a step was taken; `on_step` and the optimizer's hook see to it.

        Raises:
            InputError: see `on_step`.
        """
        quantizers = self.replay.parts.quantizers
        quantizers.step.fill_(step)
        check_scales(quantizers, step, rate=self._stepping.scale_rate, asked=self.scale_lr)
        self.replay.follow()
        self.scheduled.after_step(step)
        if step & (step - 1) == 0:  # early, and ever more rarely
            self._check_ranks()

    def _origin(self) -> str:
        if not self.replay.last_forward or any(is_sharded(parameter) for parameter in self.model.parameters()):
            return "the loss or an activation overflowed"
        return origin_of_nan(self.model, *self.replay.last_forward[0])

    def _check_ranks(self) -> None:
        named = self.replay.parts.quantizers.named()
        check_rank_equal(
            ((name, tensor) for name, q in named for tensor in (q.log_ratio, q.start, q.zero_point)), self.step
        )

    def warm_start(self, quantized: Networks, unrounded: Networks | None = None) -> None:
        """Begins where quantizing after training ended, with its weights, biases and scales; see `warm_start`.

        Where the model trains in regions, both are networks by the region's path.
        """
        warm_start(self.replay, quantized, unrounded)

    def quantized(self) -> QuantizedModel:
        """The network as it stands, ready to be evaluated or exported; training can go on.

        Raises:
            InputError: the trained module and its simulation do not compute the same codes; names the first tensor.
                Or the model trains in regions.
        """
        found = self._artefact()
        if isinstance(found, QuantizedModel):
            return found
        raise InputError(
            f"the model is not one graph: it trains in the regions {', '.join(found.regions)}; "
            "call quantized_regions(), which has a network for each"
        )

    def quantized_regions(self) -> QuantizedRegions:
        """The same where the model trains in regions: a network for each, proven as in `quantized`.

        Raises:
            InputError: see `quantized`; or the model is one graph.
        """
        found = self._artefact()
        if isinstance(found, QuantizedRegions):
            return found
        raise InputError("the model is one graph; call quantized()")

    def _artefact(self) -> QuantizedModel | QuantizedRegions:
        self._check_ranks()
        replay, decided = self.replay, self.scheduled.formats.plan
        if any(is_sharded(parameter) for parameter in self.model.parameters()):
            replay = whole_twin(self._twin, self.replay)
        if self.prepared.is_whole:
            result: QuantizedModel | QuantizedRegions = proven_model(replay, decided, self.examples)
        else:
            result = proven_regions(replay, self.prepared, decided, self.examples)
        if replay is not self.replay:
            replay.detach()
        return result

    def finish(self, path: str | Path | None = None) -> QuantizedModel | QuantizedRegions:
        """Ends the training: the quantized network, proven to compute the same codes as the trained module.

        Of a model that trains in regions it is `QuantizedRegions`: a network for each of them.

        The user's model is a float network again afterwards, with the trained weights and without anything added; the
        optimizer loses the group of the scales. Of several processes each has to call it.

        Args:
            path: where the artefact for the target's toolchain is written, by the first process; None writes nothing.
                Of regions one file each, beside a list of them; see `QuantizedRegions.write`.

        Raises:
            InputError: see `quantized`; the target's artefact has no exporter, the path cannot be written, or the
                training has ended before. Training can go on then.
        """
        self._refuse_ended("finish")
        export = exporter_for(self.target) if path is not None else None
        if path is not None and is_first():
            prepare_place(Path(path))
        result = self._artefact()
        self.replay.detach()
        self._stepping.end()
        for handle in self._loads:
            handle.remove()
        if self.optimizer is not None and self._group is not None:
            groups = self.optimizer.param_groups
            groups[:] = [group for group in groups if group is not self._group]
            for scale in self._group["params"]:
                self.optimizer.state.pop(scale, None)
        if export is not None and path is not None and is_first():
            if isinstance(result, QuantizedRegions):
                result.write(export, Path(path))
            else:
                export.write(result, Path(path))
        return result

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the model's and the optimizer's own: tensors and plain values only."""
        return {
            "format": _FORMAT,
            "plan": fingerprint(self.quant_plan).hex(),
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
        if state["plan"] != fingerprint(self.quant_plan).hex():
            raise InputError(WRONG_PLAN)
        self.scheduled.load_state_dict(state["schedule"], int(state["step"]))
        self.replay.parts.quantizers.load_state_dict(state["quantizers"])

    def before_load(self, step: int) -> None:
        """The model's checkpoint of a step is about to be loaded; see `resume`."""
        self.scheduled.formats.enter(self.scheduled.schedule.stage_at(step), restart=False)

    def after_load(self, step: int) -> None:
        """It was loaded: batch norms and observers are as they were at that step."""
        self._stepping.step = step
        self.scheduled.advance(step)

    def save(self, path: str | Path, **others: Any) -> None:
        """Writes a checkpoint from which training goes on to the last bit; at any moment the old or the new is whole.

        Args:
            path: the file; an older checkpoint there is replaced at once.
            others: whatever else the loop has with a `state_dict`, such as `scheduler=scheduler`, by name; numbers and
                tensors, such as `epoch=3`, are stored as they are.
        """
        held = {"model": self.model, "optimizer": self.optimizer, "callback": self, **others}
        content = {name: each.state_dict() if hasattr(each, "state_dict") else each for name, each in held.items()}
        write_whole(Path(path), {"format": FORMAT, "random": random_state(), "content": content})

    def load(self, path: str | Path, **others: Any) -> dict[str, Any]:
        """Goes on from a checkpoint that `save` wrote: model, optimizer, scales, schedule and random generators.

        Args:
            path: the file.
            others: what was given to `save` and has a `load_state_dict`, by the same names.

        Returns:
            What was stored as it is, by name.

        Raises:
            InputError: no such checkpoint, made with another scheme, or something is missing; nothing is changed then.
        """
        whole = read_whole(Path(path))
        content = whole["content"]
        missing = sorted(set(others) - set(content))
        if missing:
            raise InputError(f"{path}: the checkpoint holds no {missing[0]!r}; it holds {', '.join(sorted(content))}")
        if content["callback"]["plan"] != fingerprint(self.quant_plan).hex():
            raise InputError(WRONG_PLAN)
        self.model.load_state_dict(content.pop("model"))
        if self.optimizer is not None:
            self.optimizer.load_state_dict(content["optimizer"])
        self.load_state_dict(content.pop("callback"))
        for name, each in others.items():
            each.load_state_dict(content.pop(name))
        set_random_state(whole["random"])
        content.pop("optimizer")
        return dict(content)


def _target(target: str | Path | None, scheme: QuantScheme | None) -> Target | None:
    if (target is None) == (scheme is None):
        raise InputError("give either target or scheme, not both or neither")
    return None if target is None else load_target(target)
