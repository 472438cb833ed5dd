"""What the errors of the formats make of a network's results: drawn at random, propagated by the network itself.

Each operator's gain is the network's own, on the user's own data; nothing is linearised. Rounding is drawn for every
operator at the size that its terms say (`rounding.py`). This is Monte Carlo arithmetic (Parker, *Monte Carlo
Arithmetic*, UCLA CSD-970002, 1997), with the sizes of its errors derived. Quantized tensors are rounded to grids that
are shifted at random: over the shifts each error is uniform in half a step to either side, of power `step**2 / 12`, and
independent of its value (Schuchman, *Dither Signals and Their Effect on Quantization Noise*, 1964; Widrow and Kollár,
*Quantization Noise*, 2008, chapter 19).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.fake_quantize import aligned
from bitwright.quant.formats import FloatFormat
from bitwright.quant.graph import TensorRef
from bitwright.quant.parity.link import Array
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import named_outputs, to_array
from bitwright.quant.parity_measures.rounding_noise import RoundingNoise
from bitwright.quant.quantized_model import QuantizedModel

DRAWS = 8
_LARGEST_SIZE = 2.0**12  # half of float32's digits: whatever does not move then has no ties


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """A network with and without errors of its formats.

    Attributes:
        clean: results, and inner tensors that were asked for, by name.
        noisy: the same once for each draw.
        why: where a tensor's errors are made, in words; under "" those of the results.
    """

    clean: Mapping[str, Array]
    noisy: tuple[Mapping[str, Array], ...]
    why: Mapping[str, str] = field(default_factory=dict)


class QuantizationNoise:
    """One draw of what rounding to codes does: values are rounded to grids that lie elsewhere by a part of a step.

    For each value the error is uniform in half a step to either side, of power `step**2 / 12`. As on the device it is
    the same for equal values, none for values that lie on the grid already, and one rounding hangs on the one before:
    a residual stream that little is added to is rounded to the same side again and again, and its errors add up, where
    independent ones would average out. The part is one for all grids of a draw. Zero and the ends of a grid have codes
    wherever it lies.
    """

    def __init__(self, quantized: QuantizedModel, draw: torch.Generator) -> None:
        self._quantized = quantized
        self._offset = torch.rand((), generator=draw) - 0.5

    def add(self, ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with its errors, cut off where its codes end; tensors that stay in float stay."""
        qparams = self._quantized.qparams.get(ref)
        if qparams is None and ref in self._quantized.dynamic and tensor.numel():
            qparams = self._quantized.dynamic[ref].of(tensor)
        if qparams is None:
            return tensor
        step = aligned(qparams.scale, qparams, tensor)
        fmt = qparams.spec.format
        low, high = (aligned(bound, qparams, tensor) for bound in qparams.range)
        held = torch.minimum(torch.maximum(tensor, low), high)
        if isinstance(fmt, FloatFormat):
            # Codes lie 2**-m of the power of two below a value apart; below the smallest normal one evenly.
            exponent = torch.frexp((held / step).abs())[1] - 1
            step = step * torch.ldexp(torch.ones_like(held), exponent.clamp(min=fmt.min_exponent) - fmt.mantissa_bits)
        rounded = ((held / step + self._offset).round() - self._offset) * step
        has_code = (held == 0) | (held == low) | (held == high)
        return torch.where(has_code, held, torch.minimum(torch.maximum(rounded, low), high))


def rounding_draws(
    network: CapturedModel | QuantizedModel,
    inputs: Inputs,
    *,
    draws: int = DRAWS,
    arithmetic: str = "",
    wanted: Collection[str] = (),
    alone: bool = False,
) -> Draws:
    """What rounding makes of a network's results and of inner tensors.

    Args:
        network: as it computes in float, or as its codes are simulated: some of those round to the other side then.
        inputs: what to run it on.
        draws: how many runs with errors.
        arithmetic: what layers compute in on the other side, where that is coarser than here (`tf32`, `float16`).
        wanted: inner tensors by value name.
        alone: each wanted tensor by its own operators only: those behind it read it without errors.
    """
    (found,) = frame_rounding_draws(network, [inputs], draws=draws, arithmetic=arithmetic, wanted=wanted, alone=alone)
    return found


def frame_rounding_draws(
    network: CapturedModel | QuantizedModel,
    frames: Sequence[Inputs],
    *,
    draws: int = DRAWS,
    arithmetic: str = "",
    wanted: Collection[str] = (),
    alone: bool = False,
) -> tuple[Draws, ...]:
    """The same for frames one behind the other, each draw with its own memory; see `rounding_draws`.

    One code that rounds to the other side is no fault, however seldom: where a draw moves none, or no draw one that a
    result hangs on, errors are drawn larger.
    """
    asked, run = frozenset(wanted), _Run(network, arithmetic)
    clean = run.over(frames, asked, None)
    kept = [{name: each[name] for name in asked} if alone else {} for each in clean]
    has_ties = isinstance(network, QuantizedModel)
    size, noisy = 1.0, list[list[dict[str, Array]]]()
    while len(noisy) < draws:
        noisy.append(run.over(frames, asked, torch.Generator().manual_seed(len(noisy)), size, kept))
        told = run.moved and (len(noisy) < draws or _every_result_moves(clean, noisy))
        if has_ties and not told and size < _LARGEST_SIZE:
            size *= 2.0 if len(noisy) > 1 else 8.0
            noisy = []
    why = _why(run.captured, run.noise, asked)
    return tuple(
        Draws(clean=each, noisy=tuple(draw[frame] for draw in noisy), why=why) for frame, each in enumerate(clean)
    )


def _every_result_moves(clean: Sequence[Mapping[str, Array]], noisy: Sequence[Sequence[Mapping[str, Array]]]) -> bool:
    """Whether each result of real values differs in some draw, in any frame."""

    def moves(name: str) -> bool:
        pairs = ((a[name], b[name]) for draw in noisy for a, b in zip(clean, draw, strict=True))
        return not all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)

    return all(moves(name) for name, value in clean[0].items() if value.dtype.kind == "f" and value.size)


class _Run:
    """Runs a network over frames, with or without errors; notes whether these move a code.

    Attributes:
        moved: whether the last run with errors has, compared with the run without.
    """

    def __init__(self, network: CapturedModel | QuantizedModel, arithmetic: str) -> None:
        self._network = network
        self.captured = network.captured if isinstance(network, QuantizedModel) else network
        self.noise = RoundingNoise(self.captured, arithmetic)
        self.moved = False
        self._clean: dict[tuple[int, TensorRef], int] = {}  # checksums of codes

    def over(
        self,
        frames: Sequence[Inputs],
        asked: frozenset[str],
        draw: torch.Generator | None,
        size: float = 1.0,
        kept: Sequence[Mapping[str, Array]] = (),
    ) -> list[dict[str, Array]]:
        """Results and inner tensors of every frame."""
        state = self.captured.initial_state()
        recorded, self.moved = [], False
        for number, inputs in enumerate(frames):
            found: dict[str, Array] = {}
            visit = partial(self._visit, number, asked, found, draw, size, kept[number] if kept else {})
            results = self._network.run(*inputs.args, state=state, transform=visit, **inputs.kwargs)
            recorded.append({**found, **named_outputs(results)})
        return recorded

    def _visit(
        self,
        frame: int,
        asked: frozenset[str],
        found: dict[str, Array],
        draw: torch.Generator | None,
        size: float,
        kept: Mapping[str, Array],
        ref: TensorRef,
        tensor: torch.Tensor,
    ) -> torch.Tensor:
        name = value_name(ref)
        seen = self._rounded(ref, tensor if draw is None else self.noise.made(ref, tensor, draw, size))
        self._note(frame, ref, seen, is_clean=draw is None)
        if name in asked:
            found[name] = to_array(seen)
        if draw is None:
            return seen
        return self.noise.read(ref, torch.from_numpy(kept[name]).to(seen.dtype) if name in kept else seen, draw, size)

    def _note(self, frame: int, ref: TensorRef, seen: torch.Tensor, *, is_clean: bool) -> None:
        if isinstance(self._network, QuantizedModel) and ref in self._network.plan.activations:
            checksum = zlib.crc32(np.ascontiguousarray(seen.numpy()).data) if seen.numel() else 0
            if is_clean:
                self._clean[frame, ref] = checksum
            self.moved |= self._clean[frame, ref] != checksum

    def _rounded(self, ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        return self._network.transform(ref, tensor) if isinstance(self._network, QuantizedModel) else tensor


def quantization_draws(
    captured: CapturedModel, quantized: QuantizedModel, inputs: Inputs, *, draws: int = DRAWS
) -> Draws:
    """What the plan's formats make of a float network's results; weights are the rounded ones in every draw.

    Args:
        captured: the network in float.
        quantized: the same behind the same rewrites, with its plan.
        inputs: what to run both on.
        draws: how many runs with errors.
    """
    noisy = []
    for number in range(draws):
        noise = QuantizationNoise(quantized, torch.Generator().manual_seed(number))
        noisy.append(named_outputs(quantized.run(*inputs.args, transform=noise.add, **inputs.kwargs)))
    clean = named_outputs(captured.run(*inputs.args, **inputs.kwargs))
    formats = sorted({spec.format.name for spec in quantized.plan.activations.values()})
    why = f"{len(quantized.plan.activations)} tensors in {', '.join(formats)}, each off by step² / 12"
    return Draws(clean=clean, noisy=tuple(noisy), why={"": why})


def _why(captured: CapturedModel, noise: RoundingNoise, asked: frozenset[str]) -> dict[str, str]:
    """An inner tensor by its operator; the results by all of them."""
    rounding = [
        each for node in captured.graph.nodes for each in (noise.roundings.get(node.outputs[0]),) if each and each.ulps
    ]
    longest = max(rounding, key=lambda each: each.expected, default=None)
    whole = f"{len(rounding)} operators, of which the coarsest is {longest}" if longest else "values only move"
    inner = {value_name(ref): str(each) for ref, each in noise.roundings.items() if value_name(ref) in asked}
    return {**inner, "": whole}
