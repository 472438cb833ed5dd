"""From the trained module back to a `QuantizedModel`, and the proof that the two are the same network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from bitwright.hw_constraints.target import Target
from bitwright.qat.batches import Arguments, call_with, parted
from bitwright.qat.locate import undisturbed
from bitwright.qat.replay import Parts, Replay
from bitwright.qat.scheme import within
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import EXPORTERS, Exporter
from bitwright.quant.fake_quantize import quantize
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.graph import TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.quantized_model import QuantizedModel


def deployed_model(
    module: nn.Module, parts: Parts, plan: QuantPlan, args: Arguments, *, region: str = ""
) -> QuantizedModel:
    """A network as it is to be exported.

    It is captured anew, so that whatever is computed from parameters is computed from the trained ones. Weights
    stand on their grid already: rounding them again changes nothing.

    Args:
        module: the user's model or a region of it, in float, with the trained parameters.
        parts: what was trained with the model.
        plan: what is quantized of the module, and how.
        args: the example arguments.
        region: the module's path; empty for the model.

    Raises:
        InputError: the module no longer computes what it did when it was prepared.
    """
    positional, keywords = parted(args)
    folded = fit_scheme(
        capture(module, positional, keywords, region=region), within(plan.scheme, region), trains_on=True
    )
    known = {*plan.activations, *plan.weights}
    if not known <= set(folded.graph.tensors):
        lost = sorted(known - set(folded.graph.tensors))
        raise InputError(f"the model has changed since the callback was attached: it has no tensor {lost[0]} any more")
    values = dict(folded.values)
    qparams = {ref: parts.by_ref[ref].qparams() for ref in known if ref not in parts.dynamic}
    for layer in parts.layers:
        if layer.weight.region != region:
            continue
        weight, bias, weight_qparams = layer.folded.deployed(layer.module)
        values[folded.value_refs[layer.weight]] = weight
        if layer.bias is not None and bias is not None:
            values[folded.value_refs[layer.bias]] = bias
        if weight_qparams is not None:
            qparams[layer.weight] = weight_qparams
    detached = {name: value.detach().clone() for name, value in values.items()}
    dynamic = {ref: parts.dynamic[ref].rule for ref in plan.activations if ref in parts.dynamic}
    return QuantizedModel(captured=replace(folded, values=detached), plan=plan, qparams=qparams, dynamic=dynamic)


def prepare_place(path: Path) -> None:
    """Makes the folder of a file that will be written, and tries whether it can be.

    Raises:
        InputError: it cannot; said before a training is taken apart.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"finish: {path} cannot be written ({error}); training is as it was: give another path"
        ) from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        what = "is a folder" if path.is_dir() else f"cannot be written: no right to write into {path.parent}"
        raise InputError(f"finish: {path} {what}; training is as it was: give another path")


def proven_model(replay: Replay, plan: QuantPlan, examples: Sequence[Arguments]) -> QuantizedModel:
    """The network as it is to be exported, compared with the trained module on some samples, which stays attached.

    Args:
        replay: the module with the plan in force.
        plan: what is quantized, and how.
        examples: arguments of `forward`; the network is captured on the first.

    Raises:
        InputError: the two do not compute the same codes; names the first tensor.
    """
    with in_float(replay):
        result = deployed_model(replay.model, replay.parts, plan, examples[0])
    with replay.own_forward():
        for args in examples:
            prove(replay, result, args)
    return result


@contextlib.contextmanager
def in_float(replay: Replay) -> Iterator[None]:
    """The trained module without quantizers, in its own forward, for as long as the context is open."""
    if replay.is_attached:
        replay.detach()
    with replay.own_forward():
        try:
            yield
        finally:
            replay.attach()


def prove(replay: Replay, result: QuantizedModel, args: Arguments, module: nn.Module | None = None) -> None:
    """Holds that the trained module and the quantized network compute the same codes.

    Args:
        replay: the module tree with the plan in force.
        result: what `deployed_model` made of it.
        args: arguments of `forward`.
        module: the region whose network it is; None for the model.

    Raises:
        InputError: they do not; names the first tensor.
    """
    found = differences(replay, result, args, module)
    if found:
        first = found[0]
        node = result.captured.graph.producers.get(first.ref)
        where = f" ({node.source})" if node and node.source else ""
        raise InputError(
            f"the trained module and the quantized network differ from {first.ref}{where} on: "
            f"{first.differing} of {first.elements} values; an operator whose result is not used by the name it "
            "returns (x.relu_() as a statement), or a module called with other arguments than at the start"
        )


def exporter_for(target: Target | None) -> Exporter:
    """What writes the artefact of a target's toolchain; without one, an ONNX file.

    Raises:
        InputError: there is no exporter for it.
    """
    wanted = target.artifact.format if target is not None else "onnx_qdq"
    if wanted not in EXPORTERS.names():
        known = ", ".join(EXPORTERS.names())
        name = target.id if target is not None else ""
        raise InputError(
            f"the toolchain of {name!r} reads {wanted}, which has no exporter here (there are: {known}); "
            "call finish() without a path and write its result with an exporter of your choice"
        )
    exporter: Exporter = EXPORTERS.load(wanted)
    return exporter


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor whose codes differ between the module and its simulation.

    Values count where there are no codes to tell: results that stay in float, scales that follow the data.
    """

    ref: TensorRef
    differing: int
    elements: int
    largest: float


def differences(
    replay: Replay, quantized: QuantizedModel, args: Arguments, module: nn.Module | None = None
) -> list[Difference]:
    """Runs the attached module in eval mode beside the simulation and compares every code and the results.

    Args:
        replay: the module with the plan in force.
        quantized: what `deployed_model` made of it.
        args: arguments of `forward`, at the captured batch size.
        module: the region whose network it is; None for the model.

    Returns:
        The tensors with codes that differ, in the order of the graph; empty when the two are the same.
    """
    eager: dict[TensorRef, torch.Tensor] = {}
    simulated: dict[TensorRef, torch.Tensor] = {}

    def watch(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        result = quantized.transform(ref, tensor)
        if ref in quantized.qparams or ref in quantized.dynamic:
            simulated[ref] = result
        return result

    replay.parts.tap.look = lambda ref, tensor: eager.update({ref: tensor.clone()})
    try:
        with undisturbed(replay.model):
            own = quantized.captured.outputs(call_with(module or replay.model, args))
    finally:
        replay.parts.tap.look = None
    theirs = quantized.captured.outputs(quantized.run(*args, transform=watch))
    found = [
        _difference(ref, *(_codes(quantized, ref, each[ref]) for each in (eager, simulated)))
        for ref in simulated
        if ref in eager
    ]
    found += [_difference(ref, *pair) for ref, *pair in zip(quantized.captured.graph.outputs, own, theirs, strict=True)]
    return [each for each in found if each.differing]


def _codes(quantized: QuantizedModel, ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
    qparams = quantized.qparams.get(ref)
    return values if qparams is None else quantize(values, qparams)


def _difference(ref: TensorRef, eager: torch.Tensor, simulated: torch.Tensor) -> Difference:
    if eager.shape != simulated.shape:
        return Difference(ref=ref, differing=eager.numel(), elements=simulated.numel(), largest=torch.inf)
    distance = (eager.double() - simulated.double()).abs()
    differing = int((distance > 0).sum())
    largest = float(distance.max()) if differing else 0.0
    return Difference(ref=ref, differing=differing, elements=distance.numel(), largest=largest)
