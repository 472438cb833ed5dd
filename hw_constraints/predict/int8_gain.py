"""Will int8 be faster than float on this runtime, by how much, how sure is that, and which layers lose by it?

Both versions of the network are predicted from the same table; the interval is that of the ratio itself, calibrated on
random networks that were measured in both formats. Where it contains 1 the answer is that nobody can tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bitwright.hw_constraints.kernels.kernel import Family
from bitwright.hw_constraints.kernels.split import Split
from bitwright.hw_constraints.predict.calibration import ratio_spread
from bitwright.hw_constraints.predict.prediction import LayerLatency, NetworkPrediction
from bitwright.hw_constraints.predict.predictor import LatencyPredictor

_BETWEEN = frozenset({Family.QUANTIZE, Family.DEQUANTIZE, Family.REORDER})
_WORTH_SAYING = 0.01  # of the network's latency


class Expectation(StrEnum):
    """What int8 will do."""

    FASTER = "faster"
    SLOWER = "slower"
    UNSURE = "unsure"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Operators that are kernels of their own in one version and joined in the other.

    Attributes:
        layers: names of the values that they compute.
        float_us: of their float kernels.
        int8_us: of the kernels that they become, conversions included.
        between_us: of that, what converts between formats and layouts.
    """

    layers: tuple[str, ...]
    float_us: float
    int8_us: float
    between_us: float

    @property
    def loss_us(self) -> float:
        """How much longer int8 takes; negative where it gains."""
        return self.int8_us - self.float_us

    def __str__(self) -> str:
        why = f", {self.between_us:.1f} µs of that conversions" if self.between_us > 0.05 * self.int8_us else ""
        return f"{self.layers[0]}: {self.int8_us:.1f} µs in int8{why}, {self.float_us:.1f} µs in float"


@dataclass(frozen=True, kw_only=True)
class Int8Gain:
    """Int8 beside float.

    Attributes:
        ratio: int8 / float latency.
        low: lower bound of its interval.
        high: upper bound of its interval.
        level: how often such intervals cover.
        in_float: the float network.
        in_int8: the int8 network.
        stretches: the network part by part, the largest loss first.
    """

    ratio: float
    low: float
    high: float
    level: float
    in_float: NetworkPrediction
    in_int8: NetworkPrediction
    stretches: tuple[Stretch, ...]

    @property
    def expectation(self) -> Expectation:
        """Faster or slower only where the interval excludes 1."""
        if self.high < 1:
            return Expectation.FASTER
        return Expectation.SLOWER if self.low > 1 else Expectation.UNSURE

    @property
    def losers(self) -> tuple[Stretch, ...]:
        """Parts that lose by int8 more than a hundredth of the network's latency."""
        return tuple(each for each in self.stretches if each.loss_us > _WORTH_SAYING * self.in_float.us)

    def __str__(self) -> str:
        bounds = f"{100 * self.level:.0f} % between {self.low:.2f} and {self.high:.2f} of float's time"
        match self.expectation:
            case Expectation.FASTER:
                said = f"int8 will be faster: {1 / self.ratio:.2f}x ({bounds})"
            case Expectation.SLOWER:
                said = f"int8 will be slower: {self.ratio:.2f} of float's time ({bounds})"
            case _:
                said = f"whether int8 is faster cannot be told beforehand: {self.ratio:.2f} ({bounds})"
        return f"{said} on {self.in_float.where}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "origin": "predicted",
            "expectation": str(self.expectation),
            "ratio": self.ratio,
            "interval": [self.low, None if math.isinf(self.high) else self.high],
            "level": self.level,
            "float_us": self.in_float.us,
            "int8_us": self.in_int8.us,
            "losers": [
                {"layers": list(each.layers), "float_us": each.float_us, "int8_us": each.int8_us}
                for each in self.losers
            ],
        }


def int8_gain(predictor: LatencyPredictor, in_float: Split, in_int8: Split) -> Int8Gain:
    """Compares both versions of a network.

    Raises:
        InputError: one of them was split for another runtime than the predictor's.
    """
    before, after = predictor.network(in_float), predictor.network(in_int8)
    spread = ratio_spread(before.spread, after.spread)
    low, high = predictor.ratios.interval(math.log(after.us / before.us), spread)
    return Int8Gain(
        ratio=after.us / before.us,
        low=low,
        high=high,
        level=predictor.ratios.level,
        in_float=before,
        in_int8=after,
        stretches=tuple(sorted(_stretches(before.layers, after.layers), key=lambda each: -each.loss_us)),
    )


def _stretches(before: Sequence[LayerLatency], after: Sequence[LayerLatency]) -> Iterator[Stretch]:
    """Kernels of both versions that have a value in common, directly or by way of others, belong together."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        root.setdefault(name, name)
        while root[name] != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    for layer in (*before, *after):
        first = find(layer.layers[0])
        for name in layer.layers[1:]:
            root[find(name)] = first
    parts: dict[str, tuple[list[LayerLatency], list[LayerLatency]]] = {}
    for side, layers in enumerate((before, after)):
        for layer in layers:
            parts.setdefault(find(layer.layers[0]), ([], []))[side].append(layer)
    for floats, codes in parts.values():
        yield Stretch(
            layers=tuple(dict.fromkeys(name for layer in (*floats, *codes) for name in layer.layers)),
            float_us=sum(layer.us for layer in floats),
            int8_us=sum(layer.us for layer in codes),
            between_us=sum(layer.us for layer in codes if layer.kernel.family in _BETWEEN),
        )
