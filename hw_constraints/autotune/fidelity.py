"""How close a file's results are to the float network's, sample by sample, and when one file is worse than another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.backends import Arrays, get_backend
from bitwright.hw_constraints.measure.location import location_interval
from bitwright.quant.errors import InputError

# Less than what a few samples can tell; the same figure decides how many samples a run's SQNR is taken on.
RESOLUTION_DB = 0.1
_EXACT_DB = 200.0  # float32 has 24 bits, 144 dB: beyond, results are the same
_Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Closeness to the float network.

    Attributes:
        agreement: share of equal decisions (largest value along axis 1 of the first result) by sample; empty where
            results are no scores.
        sqnr_db: of all results, by sample.
    """

    agreement: tuple[float, ...]
    sqnr_db: tuple[float, ...]

    @property
    def agreement_percent(self) -> float | None:
        """Mean over the samples."""
        return 100 * sum(self.agreement) / len(self.agreement) if self.agreement else None

    @property
    def mean_sqnr_db(self) -> float:
        """Mean over the samples."""
        return sum(self.sqnr_db) / len(self.sqnr_db)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the record."""
        return {"agreement": [round(a, 6) for a in self.agreement], "sqnr_db": [round(s, 4) for s in self.sqnr_db]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Fidelity:
        """Reads what `to_json` wrote."""
        return cls(agreement=tuple(record["agreement"]), sqnr_db=tuple(record["sqnr_db"]))


def worse(candidate: Fidelity, full: Fidelity) -> str | None:
    """Why a candidate is less faithful than the full int8 network, beyond noise; None when it is not.

    Both have seen the same samples. Agreement is worse when the paired 95 % interval of the difference lies below 0:
    with one imagined sample each way, so that it is honest for few differences (Bonett & Price 2012). SQNR is worse
    when the interval of the paired differences (Wilcoxon's signed ranks) lies below 0, by more than `RESOLUTION_DB`.
    """
    if full.agreement:
        difference, spread = paired_difference(candidate.agreement, full.agreement)
        if difference + spread < 0:
            return f"agreement falls by {-100 * difference:.2f} points (noise {100 * spread:.2f})"
    loss = np.asarray(full.sqnr_db) - np.asarray(candidate.sqnr_db)
    center, low, _ = location_interval(loss)
    if low > 0 and center > RESOLUTION_DB:
        return f"SQNR falls by {center:.2f} dB (95 % at least {low:.2f})"
    return None


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Mean difference, and the half-width of its 95 % interval."""
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    imagined = np.array([*differences, 1.0, -1.0])
    return sum(differences) / len(differences), _Z95 * float(imagined.std()) / math.sqrt(len(imagined))


class Accuracy(Protocol):
    """Says how faithful a file is."""

    def __call__(self, file: Path) -> Fidelity:
        """Runs a file."""


# From the float network's file and samples to what judges other files on them.
Judge = Callable[[Path, Sequence[Arrays]], Accuracy]


class RuntimeAccuracy:
    """Runs files on a runtime, on samples at hand; the float file's results are the reference."""

    def __init__(self, float_file: Path, samples: Sequence[Arrays], runtime: str, *, threads: int = 1) -> None:
        """Runs the float file.

        Args:
            float_file: the network in float.
            samples: inputs by name, one run each.
            runtime: a backend's name.
            threads: of the runtime.

        Raises:
            InputError: there is no sample, or the runtime does not take the file or a sample.
        """
        if not samples:
            raise InputError("no sample to judge accuracy by: give at least one")
        self._samples, self._backend, self._threads = samples, get_backend(runtime), threads
        self._expected = self._results(float_file)

    def _results(self, file: Path) -> list[list[npt.NDArray[Any]]]:
        session = self._backend.load(file, threads=self._threads)
        names = [spec.name for spec in session.output_infos]
        return [[results[name] for name in names] for results in map(session.run, self._samples)]

    def __call__(self, file: Path) -> Fidelity:
        """See `Accuracy`; results are joined by their position, since Q/DQ rename them."""
        found = self._results(file)
        pairs = list(zip(self._expected, found, strict=True))
        scores = bool(_decisions(pairs[0][0]))
        return Fidelity(
            agreement=tuple(_alike(want, have) for want, have in pairs) if scores else (),
            sqnr_db=tuple(_sqnr_db(want, have) for want, have in pairs),
        )


def _decisions(results: Sequence[npt.NDArray[Any]]) -> int:
    """How many decisions the first real-valued result holds; 0 when it is no array of scores."""
    first = next((each for each in results if each.dtype.kind == "f"), None)
    if first is None or first.ndim < 2 or first.shape[1] < 2:
        return 0
    return int(first.size // first.shape[1])


def _alike(expected: Sequence[npt.NDArray[Any]], found: Sequence[npt.NDArray[Any]]) -> float:
    place = next(index for index, each in enumerate(expected) if each.dtype.kind == "f")
    return float(np.mean(expected[place].argmax(1) == found[place].argmax(1)))


def _sqnr_db(expected: Sequence[npt.NDArray[Any]], found: Sequence[npt.NDArray[Any]]) -> float:
    """`10 log10(Σ reference² / Σ (reference − candidate)²)` over all real-valued results."""
    signal = noise = 0.0
    for want, have in zip(expected, found, strict=True):
        if want.dtype.kind == "f":
            signal += float(np.square(want, dtype=np.float64).sum())
            noise += float(np.square(want.astype(np.float64) - have).sum())
    if not math.isfinite(noise):
        return -_EXACT_DB
    if noise == 0.0:
        return _EXACT_DB
    return min(_EXACT_DB, 10 * math.log10(signal / noise)) if signal else -_EXACT_DB
