"""What training in low precision looks like from inside, for TensorBoard.

Anything with `add_scalar(tag, value, step)` and `add_histogram(tag, values, step)` will do for a writer. Tensors are
looked at on one held-out batch, in eval mode, every so many steps; in between nothing is paid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.utils._pytree as pytree
from torch import nn

from bitwright.qat.callback import QATCallback
from bitwright.qat.locate import undisturbed
from bitwright.qat.quantizer import Quantizer
from bitwright.qat.schedule_run import TrainedWeight
from bitwright.quant.errors import InputError
from bitwright.quant.formats import FloatFormat
from bitwright.quant.quantized_model import QuantizedModel

Run = Callable[[QuantizedModel, tuple[Any, ...]], Any]

# A weight that turns back in more than every two-hundredth step oscillates, as Nagel et al. 2022 count them.
_OSCILLATES = 0.005
# Decibels of two networks that compute the same.
_EQUAL = 200.0
# Values of an activation that its histogram is made of, evenly from all of them.
_SHOWN = 4096
# Charts for writers that can draw several lines in one (TensorBoard's "custom scalars"): section, title, tags.
_TOGETHER = {
    "network": {
        "distance from the deployed network, dB": [r"qat/deployed_sqnr_db"],
        "latency of the deployed network, ms": [r"qat/deployed_latency_ms.*"],
        "share that is clipped, of weights and activations": [r"qat/.*clip_share"],
        "share of weights that oscillate, are frozen, are zero": [r"qat/weights_(oscillating|frozen|zero_share)"],
    },
    "by tensor": {
        "step size, change since the start in %": [r"step_size_change/.*"],
        "share of values that are clipped": [r"clip_share/.*"],
        "share of weights that oscillate": [r"oscillating/.*"],
        "share of weights that are zero": [r"zero_share/.*"],
        "bits": [r"bits/.*"],
    },
}


class Writer(Protocol):
    """What is asked of a `SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Takes one number."""

    def add_histogram(self, tag: str, values: torch.Tensor, global_step: int) -> Any:
        """Takes many."""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """How the network is tried out as it would be deployed, while it trains.

    Attributes:
        run: takes the quantized network and arguments, returns what the deployed network returns: an ONNX file on a
            runtime, say; the simulation when not given.
        latency_ms: takes the quantized network, returns a measured or modelled latency.
        every: how many looks there are for one of these, which take seconds.
    """

    run: Run | None = None
    latency_ms: Callable[[QuantizedModel], float] | None = None
    every: int = 4


class QATBoard:
    """Writes what a callback's network does.

        board = QATBoard(qat, SummaryWriter("runs/1"), held_out=(images,))
        ...; qat.on_step(); board.on_step()

    By tensor: the step size (as it is, and its change since the start in %), the share of values that are clipped,
    bits, and a histogram, of weights in codes; for weights also the share that oscillates, that is frozen, and that is
    zero. In all: the same over the whole network, its distance from the deployed network, and that one's latency.

    Args:
        callback: whose network is looked at.
        writer: where to.
        held_out: arguments of `forward` that nothing trains on.
        every: steps between two looks.
        deployed: see `Deployed`; None never tries it out.

    Raises:
        InputError: `every` is no positive number.
    """

    def __init__(
        self,
        callback: QATCallback,
        writer: Writer,
        *,
        held_out: tuple[Any, ...],
        every: int = 50,
        deployed: Deployed | None = None,
    ) -> None:
        if every < 1:
            raise InputError(f"every = {every}; allowed: 1 and more steps between two looks")
        self.callback, self.writer, self.held_out, self.every = callback, writer, held_out, every
        self.deployed, self.looks = deployed, 0
        callback.scheduled.watching = True
        self.starts = {name: float(q.qparams().scale.mean()) for name, q in self._quantizers()}
        if hasattr(writer, "add_custom_scalars"):
            layout = {
                section: {title: ["Multiline", tags] for title, tags in charts.items()}
                for section, charts in _TOGETHER.items()
            }
            writer.add_custom_scalars(layout)
        self.look()

    def on_step(self) -> None:
        """To be called after the callback's own."""
        if self.callback.step % self.every == 0:
            self.look()

    @torch.no_grad()
    def look(self) -> None:
        """Writes everything as it is now."""
        clipped = self._clipped_activations()
        for name, quantizer in self._quantizers():
            self._quantizer(name, quantizer)
        weights = {weight.name: self._weight(weight) for weight in self.callback.scheduled.weights()}
        for name, share in clipped.items():
            self._scalar(f"clip_share/{name}", share)
        self._totals(clipped, weights)
        if self.deployed is not None and self.looks % self.deployed.every == 0:
            self._deploy(self.deployed)
        self.looks += 1

    def _quantizers(self) -> list[tuple[str, Quantizer]]:
        """Those whose scale is a number of its own, not taken from the data anew each time."""
        named = self.callback.replay.parts.quantizers.named()
        return [(name, each) for name, each in named if isinstance(each, Quantizer) and hasattr(each, "qparams")]

    def _quantizer(self, name: str, quantizer: Quantizer) -> None:
        qparams = quantizer.qparams()
        step = float(qparams.scale.mean())
        self._scalar(f"step_size/{name}", step)
        self._scalar(f"step_size_change/{name}", 100 * (step / self.starts.setdefault(name, step) - 1))
        self._scalar(f"bits/{name}", float(qparams.spec.format.bits))

    def _clipped_activations(self) -> dict[str, float]:
        """Which share of each activation lies beyond its range by more than half a step; writes their histograms."""
        shares: dict[str, float] = {}
        names = {quantizer: name for name, quantizer in self._quantizers()}

        def look(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            assert isinstance(module, Quantizer)
            qparams = module.qparams()
            low, high = qparams.range
            margin = 0.5 * qparams.scale if not isinstance(qparams.spec.format, FloatFormat) else 0.0
            values = args[0].float()
            shown = values.flatten()[:: max(1, values.numel() // _SHOWN)]
            self.writer.add_histogram(f"activation/{names[module]}", shown.cpu(), self.callback.step)
            if low.dim() == 0 and values.numel():
                outside = (values < low - margin) | (values > high + margin)
                shares[names[module]] = float(outside.float().mean())

        hooks = [quantizer.register_forward_pre_hook(look) for quantizer in names]
        try:
            with undisturbed(self.callback.model):
                self.callback.model(*self.held_out)
        finally:
            for hook in hooks:
                hook.remove()
        return shares

    def _weight(self, weight: TrainedWeight) -> dict[str, float]:
        """The shares of one weight, written and returned."""
        scaled = weight.values / weight.divisor
        codes = weight.grid.nearest_(scaled.clone()).float()
        half = 0.5 if weight.grid.fmt is None else 0.0
        beyond = (scaled < weight.grid.low - half) | (scaled > weight.grid.high + half)
        shares = {"clip_share": float(beyond.float().mean()), "zero_share": float((codes == 0).float().mean())}
        seen = self.callback.scheduled.oscillations.get(weight.name)
        if seen is not None:
            shares |= {"oscillating": seen.share(_OSCILLATES), "frozen": float(seen.frozen.float().mean())}
        for kind, share in shares.items():
            self._scalar(f"{kind}/{weight.name}", share)
        self.writer.add_histogram(f"codes/{weight.name}", codes.flatten().cpu(), self.callback.step)
        self.writer.add_histogram(
            f"distance_from_code/{weight.name}", (scaled - codes).flatten().cpu(), self.callback.step
        )
        return {**shares, "elements": float(codes.numel()), "bits": float(self._bits(weight.name))}

    def _bits(self, name: str) -> int:
        named = {str(ref): quantizer for ref, quantizer in self.callback.replay.parts.by_ref.items()}
        return named[name].spec.format.bits

    def _totals(self, clipped: dict[str, float], weights: dict[str, dict[str, float]]) -> None:
        elements = sum(each["elements"] for each in weights.values())
        for kind in ("clip_share", "zero_share", "oscillating", "frozen", "bits"):
            parts = [(each[kind], each["elements"]) for each in weights.values() if kind in each]
            if parts:
                self._scalar(f"qat/weights_{kind}", sum(share * size for share, size in parts) / elements)
        if clipped:
            self._scalar("qat/activations_clip_share", sum(clipped.values()) / len(clipped))

    def _deploy(self, asked: Deployed) -> None:
        """The distance from the deployed network, and its latency; of regions that of each."""
        run = asked.run or (lambda network, args: network.run(*args))
        if self.callback.prepared.is_whole:
            quantized = self.callback.quantized()
            named, theirs = {"": quantized}, run(quantized, self.held_out)
        else:
            regions = self.callback.quantized_regions()
            named = {f"/{name}": network for name, network in regions.regions.items()}
            theirs = regions.run_by(run, *self.held_out)
        with undisturbed(self.callback.model):
            ours = self.callback.model(*self.held_out)
        self._scalar("qat/deployed_sqnr_db", _sqnr_db(ours, theirs))
        if asked.latency_ms is not None:
            for name, network in named.items():
                self._scalar(f"qat/deployed_latency_ms{name}", asked.latency_ms(network))

    def _scalar(self, tag: str, value: float) -> None:
        self.writer.add_scalar(tag, value, self.callback.step)


def _sqnr_db(ours: Any, theirs: Any) -> float:
    """`10 log10(sum a^2 / sum (a - b)^2)` over all floating-point results; 200 where they are equal."""
    pairs = zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True)
    floats = [(a.double(), b.double()) for a, b in pairs if isinstance(a, torch.Tensor) and a.is_floating_point()]
    signal = sum(float(a.square().sum()) for a, _ in floats)
    noise = sum(float((a - b).square().sum()) for a, b in floats)
    return min(_EQUAL, 10 * math.log10(signal / noise)) if noise > 0 and signal > 0 else _EQUAL
