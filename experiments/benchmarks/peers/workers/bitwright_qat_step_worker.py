"""Our own steps: the whole x86 scheme, or what ModelOpt quantizes; scales fixed or learned; batch norms live or not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from qat_step_exchange import LR, Request, Trainee, serve

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback, QATSchedule
from bitwright.quant.scheme import QuantScheme

TARGET = "x86-vnni"
LAYERS = frozenset(("conv1d", "conv2d", "conv3d", "linear", "addmm"))


def scheme_of_layers() -> QuantScheme:
    """Weights and inputs of layers alone, as ModelOpt's int8 configuration: additions and pooling stay in float."""
    whole = load_target(TARGET).scheme()
    return replace(
        whole, quantized_operators=LAYERS, codes_only_operators=frozenset(), codes_as_read=True, fused_patterns=()
    )


def prepare(network: torch.nn.Module, request: Request, *, layers: bool, method: str, live: bool) -> Trainee:
    """The callback, with ranges as calibrated where scales do not learn."""

    def attach(optimizer: torch.optim.Optimizer) -> QATCallback:
        schedule = QATSchedule(freeze_batch_norm_after=None if live else 0, freeze_observers_after=0, scale_lr=LR)
        callback = QATCallback(
            network,
            optimizer,
            scheme=scheme_of_layers() if layers else load_target(TARGET).scheme(),
            calibration=request.calibration(),
            calibration_samples=8,
            method=method,
            schedule=schedule,
        )
        network.train()
        return callback

    return Trainee(
        forward=network,
        parameters=list(network.parameters()),
        attach=lambda optimizer: attach(optimizer).on_step,
    )


def settings() -> dict[str, partial[Trainee]]:
    """All of them by name."""
    return {
        f"{'layers' if layers else 'whole scheme'}, {scales}, batch norms {norms}": partial(
            prepare, layers=layers, method=method, live=live
        )
        for layers in (False, True)
        for scales, method in (("clipped gradient", "ranges"), ("LSQ", "lsq"))
        for norms, live in (("frozen", False), ("live", True))
    }


if __name__ == "__main__":
    serve(("bitwright", "torch"), settings())
