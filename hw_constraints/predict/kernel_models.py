"""All kernels of a runtime: what was measured is looked up, what was not is predicted by its family's model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.predict.family_model import FamilyModel, Sample
from bitwright.hw_constraints.predict.features import Array
from bitwright.hw_constraints.predict.gaussian_process import Settings
from bitwright.hw_constraints.table import KernelTable
from bitwright.quant.errors import InputError

_LEAST_NOISE = 0.01  # of log time: what a paired ratio repeats within from day to day
_MOST_NOISE = 1.0
_LEAST_US = 0.05  # a kernel that drowned in the noise of what surrounds it takes about nothing
_NORMAL_95 = 1.96
_UNKNOWN_SPREAD = math.log(3.0)  # of a kernel whose family was never measured


@dataclass(frozen=True, kw_only=True)
class KernelPredictions:
    """Of several kernels, in their order.

    Attributes:
        log_us: mean of log µs.
        spread: standard deviation of log µs.
        measured: whether the very kernel is in the table.
        outside: in words, how each lies outside what was measured; empty where it does not.
    """

    log_us: Array
    spread: Array
    measured: tuple[bool, ...]
    outside: tuple[tuple[str, ...], ...]


class KernelModels:
    """A model for each family and format, and the samples themselves.

    Args:
        samples: measured kernels of one device, runtime version and thread count.
        settings: what an earlier `KernelModels` of the same samples has learned, so that it is not learned again.

    Raises:
        InputError: there is no sample.
    """

    def __init__(self, samples: Sequence[Sample], settings: Mapping[str, Settings] | None = None) -> None:
        if not samples:
            raise InputError("the table has no measured kernel; fill it first: bitwright measure kernels")
        self._known = {sample.kernel: sample for sample in samples}
        groups: dict[str, list[Sample]] = {}
        for sample in samples:
            groups.setdefault(_group(sample.kernel), []).append(sample)
        self._models = {
            group: FamilyModel(members, (settings or {}).get(group)) for group, members in sorted(groups.items())
        }
        self._fallback = FamilyModel(_few(samples))

    @property
    def settings(self) -> dict[str, Settings]:
        """What was learned, by family and format."""
        return {group: model.settings for group, model in self._models.items() if model.settings is not None}

    def predict(self, kernels: Sequence[Kernel]) -> KernelPredictions:
        """Time of each kernel; families at once, so that a network takes milliseconds."""
        log_us, spread = np.empty(len(kernels)), np.empty(len(kernels))
        known = [self._known.get(kernel) for kernel in kernels]
        outside: list[tuple[str, ...]] = [()] * len(kernels)
        unknown: dict[str, list[int]] = {}
        for index, (kernel, sample) in enumerate(zip(kernels, known, strict=True)):
            if sample is None:
                unknown.setdefault(_group(kernel), []).append(index)
            else:
                log_us[index], spread[index] = math.log(sample.us), sample.noise
        for group, indices in unknown.items():
            model, members = self._models.get(group), [kernels[index] for index in indices]
            if model is None:
                log_us[indices], _, _ = self._fallback.predict(members)
                spread[indices] = _UNKNOWN_SPREAD
                for index in indices:
                    outside[index] = (f"no {group.replace('/', ' kernel in ')} was measured",)
                continue
            log_us[indices], spread[indices], words = model.predict(members)
            for index, said in zip(indices, words, strict=True):
                outside[index] = said
        measured = tuple(sample is not None for sample in known)
        return KernelPredictions(log_us=log_us, spread=spread, measured=measured, outside=tuple(outside))


def samples_of(table: KernelTable) -> list[Sample]:
    """The measured kernels of a table; not those of which it is not known whether they take any time."""
    return [
        Sample(
            kernel=row.kernel,
            us=max(_LEAST_US, row.ratio * table.reference_us),
            noise=_noise(row.ratio, row.half_width),
        )
        for row in table.measured
        if math.isfinite(row.ratio) and row.ratio > 0
    ]


def _noise(ratio: float, half_width: float) -> float:
    if ratio <= 0 or not math.isfinite(half_width):
        return _MOST_NOISE
    return min(_MOST_NOISE, max(_LEAST_NOISE, half_width / _NORMAL_95 / ratio))


def _group(kernel: Kernel) -> str:
    return f"{kernel.family}/{kernel.format}"


def _few(samples: Sequence[Sample]) -> list[Sample]:
    """Enough for a roofline over all families, too few for a process."""
    return [samples[int(position)] for position in np.linspace(0, len(samples) - 1, min(7, len(samples)))]
