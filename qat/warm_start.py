"""Training begins where quantizing after training ended: the weights, biases and scales that it chose.

Below 8 bits the nearest rounding of the float weights is a poor place to start from: MobileNetV2 in 4 bits keeps 11 %
of its accuracy there, and 80 % after equalization and GPTQ. Training then repairs what is left, and needs few steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from bitwright.qat.oscillation import codes_of
from bitwright.qat.quantizer import Quantizer
from bitwright.qat.replay import Layer, Replay
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TensorRef
from bitwright.quant.quantized_model import QuantizedModel

# Latent weights stay this far from the middle of their code at most, in codes: a tenth of one is left to its border.
_FARTHEST = 0.4


# A whole network, or one for each region that a model trains in, by the path of its module.
Networks = QuantizedModel | Mapping[str, QuantizedModel]


@torch.no_grad()
def warm_start(replay: Replay, quantized: Networks, unrounded: Networks | None = None) -> None:
    """Puts the weights, biases and scales of a quantized network into the module tree that is trained.

    A folded batch norm becomes the identity with the bias of the quantized network (`gamma = 1`, `mean = 0`,
    `var = 1 - eps`), its layer gets the folded weight: the parameters keep their names and shapes. Weights that
    functions read, not layers, keep their values and start on the quantized network's scales.

    Args:
        replay: the plan in force in the user's model; its batch norms are frozen, since statistics of the batch are
            not those of a rewritten layer.
        quantized: the same network, quantized by the same scheme with whichever rounding, and equalized if need be; of
            a model that trains in regions a network for each, as `quantize_regions` returns them. Of a region that is
            called with several shapes the first network counts, and regions that do not train are passed over.
        unrounded: the same before its weights were rounded. Latent weights then begin between the middle of their code
            and what they were, so that those that were rounded for little reason change first; without it all begin in
            the middle, and have half a code to go.

    Raises:
        InputError: the batch norms still learn; the network was quantized by another plan; or it holds a bias that
            the module has no room for. Nothing is changed then.
    """
    if not replay.frozen and any(layer.folded.norm is not None for layer in replay.parts.layers):
        raise InputError(
            "a warm start replaces what batch norms compute, so they must be frozen: give freeze_batch_norm_after=0"
        )
    start = _by_region(replay, quantized)
    before = {} if unrounded is None else _by_region(replay, unrounded)
    _check_same_plan(replay, start.values())
    starts = [(layer, *_values_of(layer, start[layer.weight.region])) for layer in replay.parts.layers]
    for layer, _, bias in starts:
        _check_room(layer, bias)
    taken: set[int] = set()
    for layer, weight, bias in starts:
        _write(layer, weight, bias)
        taken |= _assign(layer.folded.quantizer, layer.weight, start[layer.weight.region])
        if before:
            _towards(layer, _values_of(layer, before[layer.weight.region])[0])
    for ref, quantizer in replay.parts.by_ref.items():
        if id(quantizer) not in taken:
            taken |= _assign(quantizer, ref, start[ref.region])


def _by_region(replay: Replay, given: Networks) -> dict[str, QuantizedModel]:
    """The network of each region that trains; of a whole model "" is the only one."""
    trained = sorted({ref.region for ref in replay.parts.by_ref})
    if isinstance(given, QuantizedModel):
        if trained != [""]:
            raise InputError(
                f"the model trains in the regions {', '.join(trained)}; give a network for each, as "
                "quantize_regions(model, find_regions(model, example).regions, scheme, samples) returns them"
            )
        return {"": given}
    if trained == [""]:
        raise InputError("the model is one graph; give one quantized network, not one for each of its regions")
    if missing := [path for path in trained if path not in given]:
        raise InputError(
            f"the model trains in the regions {', '.join(trained)}, and there is no quantized network of {missing[0]}; "
            "quantize that one, too, on samples that reach it"
        )
    return {path: given[path] for path in trained}


def _check_same_plan(replay: Replay, networks: Iterable[QuantizedModel]) -> None:
    ours = replay.parts.by_ref
    theirs = {ref: qparams for network in networks for ref, qparams in network.qparams.items()}
    other = sorted(set(ours) ^ set(theirs))
    if other:
        where = "the trained module" if other[0] in ours else "the quantized network"
        raise InputError(
            f"the quantized network was made by another plan: only {where} quantizes {other[0]}; "
            "quantize the same model by the same scheme"
        )
    for ref, quantizer in ours.items():
        spec = theirs[ref].spec
        if (spec.format, spec.granularity, spec.scale_kind) != (
            quantizer.spec.format,
            quantizer.spec.granularity,
            quantizer.spec.scale_kind,
        ):
            raise InputError(
                f"the quantized network has {ref} in {spec.format.name} {spec.granularity}, the training in "
                f"{quantizer.spec.format.name} {quantizer.spec.granularity}; give both the same scheme"
            )


def _values_of(layer: Layer, quantized: QuantizedModel) -> tuple[torch.Tensor, torch.Tensor | None]:
    captured = quantized.captured
    weight = captured.values[captured.value_refs[layer.weight]]
    if layer.bias is None or layer.bias not in captured.value_refs:
        return weight, None
    return weight, captured.values[captured.value_refs[layer.bias]]


def _check_room(layer: Layer, bias: torch.Tensor | None) -> None:
    norm = layer.folded.norm
    own = layer.module.bias if norm is None else norm.bias
    if bias is not None and own is None and bool(bias.any()):
        raise InputError(
            f"the quantized network adds a bias behind {layer.weight}, and the module has none to hold it; "
            "make the layer with bias=True (its zeros change nothing)"
        )


def _write(layer: Layer, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    own, norm = layer.module, layer.folded.norm
    assert isinstance(own.weight, torch.Tensor)
    own.weight.copy_(weight)
    if norm is not None:
        _make_identity(norm)
        if isinstance(own.bias, torch.Tensor):
            own.bias.zero_()
    held = own.bias if norm is None else norm.bias
    if isinstance(held, torch.Tensor) and bias is not None:
        held.copy_(bias)


def _towards(layer: Layer, unrounded: torch.Tensor) -> None:
    """Moves latent weights towards what they were, without changing a code."""
    quantizer, own = layer.folded.quantizer, layer.module.weight
    if quantizer is None or not isinstance(own, torch.Tensor):
        return
    divisor = layer.folded.divisor(layer.module)
    codes = codes_of(own, divisor, quantizer.grid)
    off = (unrounded.to(own) / divisor - codes).clamp_(-_FARTHEST, _FARTHEST)
    own.copy_((codes + off) * divisor)


def _make_identity(norm: _BatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None  # only such batch norms are folded
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0 - norm.eps)
    if norm.weight is not None:
        norm.weight.fill_(1.0)
    if norm.bias is not None:
        norm.bias.zero_()


def _assign(quantizer: Quantizer | None, ref: TensorRef, quantized: QuantizedModel) -> set[int]:
    if quantizer is None:
        return set()
    quantizer.assign(quantized.qparams[ref])
    return {id(quantizer)}
