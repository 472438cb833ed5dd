"""ModelOpt: `mts.sparsify` by magnitude or `mtp.prune` by FastNAS; then its int8 configuration in training."""

from __future__ import annotations

from typing import Any

import modelopt.torch.nas.algorithms as algorithms
import modelopt.torch.prune as mtp
import modelopt.torch.quantization as mtq
import modelopt.torch.sparsity as mts
import torch
from modelopt.torch.prune.fastnas import FastNASConfig
from networks import fold_batch_norms
from qat_exchange import Trainee
from sparse_exchange import SparseRequest, serve

_MULTIPLE = 8  # its default of 32 leaves networks of 16 channels as they are


def make_small(network: torch.nn.Module, request: SparseRequest) -> torch.nn.Module:
    """Sparse or pruned first, trained on afterwards, as its documentation has it."""
    small: Any = _sparse(network) if request.variant == "2:4" else _pruned(network, request)
    if not request.prune_only:
        request.fit(Trainee(forward=small, parameters=small.parameters(), evaluate=small.eval, train=small.train))
    done: torch.nn.Module = mts.export(small) if request.variant == "2:4" else small
    return done


def _sparse(network: torch.nn.Module) -> torch.nn.Module:
    sparse: torch.nn.Module = mts.sparsify(network, "sparse_magnitude")
    return sparse


def _pruned(network: torch.nn.Module, request: SparseRequest) -> torch.nn.Module:
    algorithms.inference_flops = _flops
    rules: Any = FastNASConfig().model_dump()
    for rule in rules.values():
        for settings in (rule or {}).values():
            for key in ("channel_divisor", "feature_divisor"):
                if settings and key in settings:
                    settings[key] = _MULTIPLE
    images, labels = request.images("validation"), request.labels("validation")

    def score(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return float((model(images).argmax(1) == labels).double().mean())

    batches = [(batch,) for batch in torch.split(request.images("train")[:256], 64)]
    pruned, _ = mtp.prune(
        network,
        mode=[("fastnas", rules)],
        constraints={"flops": f"{100 * request.share:g}%"},
        dummy_input=images[:1],
        config={
            "data_loader": batches, "collect_func": lambda batch: batch[0], "score_func": score, "checkpoint": None
        },
    )  # fmt: skip
    result: torch.nn.Module = pruned.requires_grad_(True)
    return result


def _flops(network: torch.nn.Module, dummy_input: Any, unit: float = 1.0, **_: Any) -> float:
    """Twice the products of its layers: what it asks torchprofile for, which its wheel does not bring."""
    total = 0

    def count(module: Any, _: Any, result: torch.Tensor) -> None:
        nonlocal total
        total += result[0].numel() * module.weight[0].numel()

    layers = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    training = network.training
    with torch.no_grad():
        network.eval()(dummy_input)
    network.train(training)
    for handle in handles:
        handle.remove()
    return 2.0 * total / unit


def quantize(network: torch.nn.Module, request: SparseRequest) -> Trainee:
    """Zeros are kept by masks on the gradient's result: its own sparsity has been exported by then."""

    def calibrate(model: torch.nn.Module) -> None:
        with torch.no_grad():
            for batch in request.calibration():
                model(batch)

    folded = fold_batch_norms(network.eval())
    masks = {name: weight != 0 for name, weight in folded.named_parameters() if weight.dim() > 1}
    quantized: Any = mtq.quantize(folded, mtq.INT8_DEFAULT_CFG, calibrate)
    for parameter in quantized.parameters():
        parameter.requires_grad_(True)

    @torch.no_grad()
    def hold() -> None:
        if request.variant == "2:4":
            for name, weight in quantized.named_parameters():
                if name in masks:
                    weight.mul_(masks[name])

    return Trainee(
        forward=quantized,
        parameters=quantized.parameters(),
        attach=lambda _: hold,
        evaluate=quantized.eval,
        train=quantized.train,
    )


if __name__ == "__main__":
    serve(("nvidia-modelopt", "torch"), make_small, quantize)
