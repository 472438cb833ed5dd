"""Where measured and modelled are far apart, and which facts of the profile say why.

Nothing here guesses: each clause names a figure that was measured, proven, or stands in the estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bitwright.hw_constraints.cost.estimate import LayerEstimate
from bitwright.hw_constraints.profile.report import LayerTime
from bitwright.hw_constraints.proof.report import State

FAR_APART = 0.25  # of the larger figure
_MEMORY_BOUND = 0.5  # of the rate of a plain copy, from where on a layer is called bound by memory
_SMALL = 2.0  # times the cost of starting a kernel, up to which a layer is called too small
_SLOW = 0.5  # of the best rate that a layer of the same network reaches
_NOTABLE = 0.1  # of a layer's time, from where on conversions before it are named


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the whole profile says, for the remarks on its layers.

    Attributes:
        scale: what a modelled time is multiplied with before it is compared: 1 on the same device, else the ratio of
            the wholes, so that shares are compared.
        start_us: outside kernels, for each kernel.
        best_rate: multiply-accumulates a microsecond of the fastest layer, by state.
        copy_gb_s: of a plain copy.
        what: `modelled` or `predicted`.
    """

    scale: float
    start_us: float
    best_rate: dict[State, float]
    copy_gb_s: float | None
    what: str = "modelled"


def remark(layer: LayerTime, expected_us: float, estimates: tuple[LayerEstimate, ...], scene: Scene, why: str) -> str:
    """By how much a layer's time differs, and why; empty when it does not by more than a quarter.

    Args:
        layer: as measured.
        expected_us: modelled or predicted.
        estimates: of the operations that are modelled for it.
        scene: of the whole profile.
        why: the proof's reason for a layer in float.
    """
    expected = expected_us * scene.scale
    if abs(layer.us - expected) <= FAR_APART * max(layer.us, expected):
        return ""
    if expected == 0.0:
        return f"{scene.what} as free, takes {layer.us:.1f} µs here"
    if layer.us == 0.0:
        return f"{scene.what} as {expected_us:.2g} µs; the runtime needs no measurable time for it"
    side = "slower" if layer.us > expected else "faster"
    times = max(layer.us, expected) / min(layer.us, expected)
    share = "" if scene.scale == 1.0 else ", by share of the whole"
    facts = list(_slower(layer, scene, why) if side == "slower" else _faster(layer, estimates))
    facts += _bounds(estimates)
    return f"{times:.1f}x {side} than {scene.what}{share}: {'; '.join(facts) or 'no fact of this profile says why'}"


def _slower(layer: LayerTime, scene: Scene, why: str) -> Iterator[str]:
    if layer.state is State.FLOAT and why:
        yield f"runs in float ({why})"
    if layer.conversions_us > _NOTABLE * layer.us:
        yield f"another {layer.conversions_us:.1f} µs of conversions right before it"
    if layer.us <= _SMALL * scene.start_us:
        yield f"too small: between two kernels the runtime spends {scene.start_us:.1f} µs"
    rate = layer.bytes / layer.us / 1e3 if layer.us else 0.0  # bytes a microsecond are MB/s
    if scene.copy_gb_s and rate > _MEMORY_BOUND * scene.copy_gb_s:
        yield f"memory bound: moves {layer.bytes / 1e6:.2f} MB at {rate:.1f} GB/s, a plain copy {scene.copy_gb_s:.1f}"
    elif layer.macs and layer.us:
        own, best = layer.macs / layer.us, scene.best_rate.get(layer.state, 0.0)
        if own < _SLOW * best:
            rates = f"{own / 1e3:.1f} GMAC/s, the best of this network {best / 1e3:.1f}"
            yield f"its kernel ({layer.kernel}) reaches {rates}"


def _faster(layer: LayerTime, estimates: tuple[LayerEstimate, ...]) -> Iterator[str]:
    if layer.members and len(estimates) > 1:
        yield f"one kernel here, {len(estimates)} operations in the model"


def _bounds(estimates: tuple[LayerEstimate, ...]) -> list[str]:
    bounds = sorted({each.bound_by for each in estimates if each.us})
    return [f"modelled as bound by {' and '.join(bounds)}"] if bounds else []
