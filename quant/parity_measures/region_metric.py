"""Quantized regions in the user's own model, at the user's own metric: each alone, and all together.

The threshold follows from the formats: the same model runs with random errors in the same regions, of up to half a step
on weights and activations in codes and of rounding on what stays in float, and the metric of that is what is expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from bitwright.quant.graph import TensorRef
from bitwright.quant.parity_measures.noise import DRAWS, QuantizationNoise
from bitwright.quant.parity_measures.rounding_noise import RoundingNoise
from bitwright.quant.parity_measures.thresholds import allowed_power
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.regions import Region
from bitwright.quant.swap_regions import Arguments, Forward, swapped

Metric = Callable[[Any, Any], float]
ALL = "all regions"


@dataclass(frozen=True, kw_only=True)
class RegionEffect:
    """What quantized regions do to the metric, as root mean square over the samples.

    Attributes:
        region: its name; `ALL` for all of them at once.
        seen: the metric of the model with them.
        expected: by the formats' errors.
        allowed: by these and the number of draws.
    """

    region: str
    seen: float
    expected: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the formats explain what is seen."""
        return self.seen <= self.allowed

    def __str__(self) -> str:
        return f"{self.region}: expected {self.expected:.2e}, allowed {self.allowed:.2e}, seen {self.seen:.2e}"


def region_effects(
    model: torch.nn.Module,
    regions: Sequence[Region],
    quantized: Mapping[str, QuantizedModel],
    samples: Sequence[Arguments],
    metric: Metric,
    *,
    deployed: Mapping[str, Forward] | None = None,
    draws: int = DRAWS,
) -> Iterator[RegionEffect]:
    """Measures each quantized region alone in the user's model, then all of them together.

    Args:
        model: the user's.
        regions: of this model.
        quantized: by the region's name.
        samples: arguments of the model's `forward`.
        metric: how far a result (second) is from the float model's (first); 0 where they are equal, an error's size
            else, in the user's unit.
        deployed: what computes a region where it is deployed, by its name; the simulation of those left out.
        draws: how many runs with random errors.
    """
    references = _results(model, regions, dict, samples)
    alone = [(name, (name,)) for name in quantized] if len(quantized) > 1 else []
    for name, chosen in (*alone, (ALL, tuple(quantized))):
        measure = partial(_measured, model, regions, samples, metric, references)
        mine = {each: quantized[each] for each in chosen}
        powers = [measure(partial(_forwards, mine, torch.Generator().manual_seed(n))) ** 2 for n in range(draws)]
        allowed = float(allowed_power(np.array([powers]))[0]) if any(powers) else 0.0
        yield RegionEffect(
            region=name,
            seen=measure(partial(_forwards, mine, None, deployed or {})),
            expected=math.sqrt(sum(powers) / draws),
            allowed=math.sqrt(allowed),
        )


def _measured(
    model: torch.nn.Module,
    regions: Sequence[Region],
    samples: Sequence[Arguments],
    metric: Metric,
    references: Sequence[Any],
    make: Callable[[], Mapping[str, Forward]],
) -> float:
    results = _results(model, regions, make, samples)
    return math.sqrt(sum(metric(a, b) ** 2 for a, b in zip(references, results, strict=True)) / len(samples))


def _results(
    model: torch.nn.Module,
    regions: Sequence[Region],
    make: Callable[[], Mapping[str, Forward]],
    samples: Sequence[Arguments],
) -> list[Any]:
    """Each sample from the state before the first."""
    found = []
    for args, kwargs in samples:
        copied, named = pytree.tree_map_only(torch.Tensor, torch.clone, (args, dict(kwargs)))
        with swapped(model, regions, make()), torch.no_grad():
            found.append(pytree.tree_map_only(torch.Tensor, torch.clone, model(*copied, **named)))
    return found


def _forwards(
    quantized: Mapping[str, QuantizedModel],
    draw: torch.Generator | None,
    deployed: Mapping[str, Forward] = MappingProxyType({}),
) -> dict[str, Forward]:
    """What runs in place of the regions, with a memory of its own where they have one."""

    def simulated(each: QuantizedModel) -> Forward:
        state = each.captured.initial_state()
        return partial(each.run, state=state) if draw is None else partial(_with_errors, each, state, draw)

    return {name: deployed.get(name) or simulated(each) for name, each in quantized.items()}


def _with_errors(
    quantized: QuantizedModel, state: dict[str, torch.Tensor], draw: torch.Generator, *args: Any, **kwargs: Any
) -> Any:
    """One run with random errors; biases are as they are."""
    noise, captured = QuantizationNoise(quantized, draw), quantized.captured
    rounding = RoundingNoise(captured)
    names = captured.value_refs
    weights = {names[ref]: noise.add(ref, captured.values[names[ref]]) for ref in quantized.plan.weights}
    operands = {
        node: {name: weights.get(name, value) for name, value in read.items()}
        for node, read in quantized.simulated_operands.items()
    }

    def off(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        return noise.add(ref, rounding.made(ref, tensor, draw))

    return captured.run(*args, state=state, transform=off, operands=operands, **kwargs)
