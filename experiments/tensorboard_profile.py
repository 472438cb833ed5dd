"""A profile for TensorBoard: bars by layer, a scalar with the layer as the step, and tails and throughput as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bitwright.experiments.profile_command import Profiled
from bitwright.experiments.profile_text import layer_table
from bitwright.experiments.tensorboard import Runs
from bitwright.experiments.tensorboard_images import FLOAT, INK, QUANTIZED, Pixels, axes_of, pixels_of
from bitwright.hw_constraints.profile.report import LayerTime, NetworkProfile
from bitwright.hw_constraints.proof.report import State

_LARGEST = 60  # layers in one picture; the rest are one bar


def write_profile(found: Profiled, folder: Path) -> None:
    """Writes event files; measured, modelled and predicted times are runs of their own, so that they lie over another.

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    profile, runs = found.profile, Runs(folder)
    for name, times in _series(profile).items():
        for step, us in enumerate(times):
            if us is not None:
                runs[f"{profile.runtime}/{name}"].add_scalar("profile/layer_us", us, step)
    writer = runs[f"{profile.runtime}/measured"]
    for name, us in (("layers", profile.layers_us), ("conversions", profile.conversions_us),
                     ("outside_kernels", profile.overhead_us), ("run", profile.wall_us)):  # fmt: skip
        writer.add_scalar(f"profile/total_us/{name}", us)
    for tails in found.tails:
        for condition, latencies in (("alone", tails.alone), (_slug(tails.co_runner), tails.beside)):
            runs[f"{profile.runtime}/{condition}"].add_scalar("profile/p50_us", latencies.p50.us)
            runs[f"{profile.runtime}/{condition}"].add_scalar("profile/p99_us", latencies.p99.us)
    for each in found.throughput:
        if each.per_second is not None:
            writer.add_scalar(f"profile/samples_per_second/{each.streams}_streams", each.per_second, each.batch)
    heads, rows = layer_table(profile)
    lines = ["|".join(heads), "|".join("---" for _ in heads), *("|".join(row) for row in rows)]
    writer.add_text("profile/layers", "\n".join(lines))
    writer.add_image("profile/layers", layers_image(profile), dataformats="HWC")
    runs.close()


def _slug(co_runner: str) -> str:
    return "beside_memory" if "memory" in co_runner else "beside_same_network"


def _series(profile: NetworkProfile) -> dict[str, list[float | None]]:
    """Times by layer of each source that has any; those of another device are scaled to the same total."""
    scale = modelled_scale(profile)
    modelled = "modelled" if profile.is_same_device else "modelled, same total"
    series: dict[str, list[float | None]] = {
        "measured": [layer.us for layer in profile.layers],
        modelled: [None if layer.modelled_us is None else scale * layer.modelled_us for layer in profile.layers],
        "predicted": [layer.predicted_us for layer in profile.layers],
    }
    return {name: times for name, times in series.items() if any(us is not None for us in times)}


def modelled_scale(profile: NetworkProfile) -> float:
    """What modelled times are multiplied with: on another device than was measured only shares compare."""
    total = sum(layer.modelled_us or 0.0 for layer in profile.layers)
    return 1.0 if profile.is_same_device or not total else profile.layers_us / total


def layers_image(profile: NetworkProfile) -> Pixels:
    """Measured time of each layer as a bar, with the conversions before it on top; expected times as marks.

    On another device than the modelled one the marks are scaled to the same total: shares are compared.
    """
    layers, rest_us = _largest(profile.layers)
    figure, axes = axes_of(max(7.0, 0.24 * (len(layers) + 1)), 5.2)
    places = np.arange(len(layers))
    times = np.asarray([layer.us for layer in layers])
    is_float = np.asarray([layer.state is State.FLOAT for layer in layers], bool)
    for part, label, colour, hatch in ((~is_float, "low precision", QUANTIZED, ""), (is_float, "float", FLOAT, "//")):
        if part.any():
            axes.bar(places[part], times[part], color=colour, hatch=hatch, edgecolor="white", label=label)
    before = np.asarray([layer.conversions_us for layer in layers])
    if before.any():
        axes.bar(places, before, bottom=times, facecolor="white", edgecolor=FLOAT, hatch="////", label="conversions")
    for name, marker in (("modelled", "_"), ("predicted", "x")):
        expected = np.asarray([getattr(layer, f"{name}_us") or np.nan for layer in layers], np.float64)
        if np.isfinite(expected).any():
            scale = 1.0
            label = name
            if name == "modelled" and not profile.is_same_device:
                scale = modelled_scale(profile)
                label = f"modelled for {profile.modelled_by}, same total"
            axes.scatter(places, expected * scale, marker=marker, color=INK, s=60, label=label, zorder=3)
    axes.set_xticks(places, [layer.name for layer in layers], rotation=90, fontsize=6)
    rest = f"; {rest_us:.0f} µs in {len(profile.layers) - len(layers)} smaller layers" if rest_us else ""
    title = f"{profile.runtime} {profile.version}: {profile.wall_us:,.0f} µs a run ({profile.origin}){rest}"
    axes.set(ylabel="µs", title=title, xlim=(-1, len(layers)))
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return pixels_of(figure)


def _largest(layers: Sequence[LayerTime]) -> tuple[list[LayerTime], float]:
    """The layers that a picture has room for, in their order, and the time of the others."""
    kept = sorted(range(len(layers)), key=lambda index: -layers[index].us)[:_LARGEST]
    shown = [layers[index] for index in sorted(kept)]
    return shown, sum(layer.us for layer in layers) - sum(layer.us for layer in shown)
