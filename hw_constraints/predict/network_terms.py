"""What a network costs beyond its kernels alone, and how far sums of kernels are off, from networks measured whole.

    T = call + node * kernels + in * bytes in + out * bytes out + miss * bytes of weights that no cache keeps
        + sum over families, formats and sizes of c * their kernels' sum

The sums come from the kernels' models; the coefficients from a Bayesian linear regression on the table's random
networks, with errors that are relative to T (Rasmussen & Williams 2006, section 2.1). The prior says that a sum of
kernels is a sum: c = 1, the rest about 0, and the data have to speak against that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.hw_constraints.kernels.kernel import Family, Kernel, Shape
from bitwright.hw_constraints.predict.features import Array

_FORMATS = ("float32", "int8")
_SIZES = {"small": 8.0, "middle": 80.0, "large": math.inf}  # µs up to which a kernel is called so
OVERHEADS = ("call", "kernels", "bytes in", "bytes out", "bytes of displaced weights")
_SUMS = tuple((str(family), number, size) for number in _FORMATS for family in Family for size in _SIZES)
NAMES = (*OVERHEADS, *map("/".join, _SUMS))
# Prior means and standard deviations, µs: a call, a kernel, bytes at 10 GB/s more or less (results also at 1 GB/s:
# OpenVINO brings pictures among them into their layout one element after the other), memory at 33 GB/s
# in place of 100: 20 µs a MB. That is measured (below) and not left to the networks, whose kernels with large weights
# were not measured alone: an error in those is no matter of memory.
_PRIOR = {
    "call": (10.0, 15.0),
    "kernels": (0.0, 0.3),
    "bytes in": (5e-5, 1e-4),
    "bytes out": (5e-5, 1e-3),
    "bytes of displaced weights": (2e-5, 3e-6),
}
# How far coefficients are from 1: what a family has in common, and what each of its sizes has of its own.
_FAMILY_SPREAD, _OWN_SPREAD = 0.12, 0.06
_FIRST_NOISE = 0.05
_LEAST_NOISE = 0.01
_ROUNDS = 30
_FREEDOM = 3.0  # degrees of freedom: errors with the tails of Student's t, since a runtime surprises now and then
_MEDIAN_SQUARE = 0.455  # the median of a squared standard normal
_FLOAT_BYTES = 4
_IN_COMMON = 0.3  # correlation of the errors of two kernels of one family
# One thread reads again and again: 100 GB/s of up to 4 MB, 83 of 8, 57 of 12, 45 of 16, 32 of more than 24, where
# guests share 32 MB of last-level cache.
_KEPT_BYTES, _LOST_BYTES = 4e6, 16e6


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A network as numbers.

    Attributes:
        values: one for each of `NAMES`.
        spread_us: standard deviation of the sum of its kernels, µs.
    """

    values: Array
    spread_us: float


def terms_of(
    kernels: Sequence[Kernel], us: Array, spread: Array, inputs: Sequence[Shape], outputs: Sequence[Shape]
) -> Terms:
    """Adds up a network's kernels.

    Args:
        kernels: in the order in which they run.
        us: of each.
        spread: standard deviation of the logarithm of each.
        inputs: shapes of the network's arguments.
        outputs: shapes of its results.
    """
    values = np.zeros(len(NAMES))
    read, written = (_FLOAT_BYTES * sum(map(math.prod, shapes)) for shapes in (inputs, outputs))
    values[: len(OVERHEADS)] = (1.0, len(kernels), read, written, _displaced(kernels))
    for kernel, each in zip(kernels, us, strict=True):
        values[_PLACE[term_name(kernel, float(each))]] += each
    return Terms(values=values, spread_us=_spread(kernels, us * spread))


def _spread(kernels: Sequence[Kernel], errors: Array) -> float:
    """Of a sum: errors of one family and format go the same way in part, those of different ones do not."""
    together: dict[tuple[Family, str], float] = {}
    for kernel, error in zip(kernels, errors, strict=True):
        group = kernel.family, kernel.format
        together[group] = together.get(group, 0.0) + float(error)
    alone = float(errors @ errors)
    return math.sqrt((1 - _IN_COMMON) * alone + _IN_COMMON * sum(each**2 for each in together.values()))


def _displaced(kernels: Sequence[Kernel]) -> float:
    """Bytes of weights that others have displaced from the last-level cache when they are needed again.

    A call reads weights and activations in the same order each time, so what does not fit is displaced before it is
    read again: the share `r` grows with what a call touches. A kernel alone has paid for those of its weights that not
    even it could keep, so it counts for w * (r(all) - r(w)).
    """
    touched = float(sum(kernel.bytes for kernel in kernels))
    return sum(
        kernel.weight_bytes * max(0.0, _share_lost(touched) - _share_lost(kernel.weight_bytes)) for kernel in kernels
    )


def _share_lost(touched: float) -> float:
    return min(1.0, max(0.0, (touched - _KEPT_BYTES) / (_LOST_BYTES - _KEPT_BYTES)))


_PLACE = {name: index for index, name in enumerate(NAMES)}


def term_name(kernel: Kernel, us: float) -> str:
    """The sum that a kernel belongs to."""
    size = next(name for name, limit in _SIZES.items() if us <= limit)
    return f"{kernel.family}/{kernel.format if kernel.format in _FORMATS else _FORMATS[0]}/{size}"


@dataclass(frozen=True, kw_only=True)
class Correction:
    """The coefficients' posterior.

    Attributes:
        mean: of each of `NAMES`.
        covariance: of them.
        noise: relative error of a network that coefficients and kernels do not explain.
        networks: how many it rests on.
    """

    mean: Array
    covariance: Array
    noise: float
    networks: int

    def latency(self, terms: Terms) -> tuple[float, float]:
        """A network's µs, and the standard deviation of its logarithm."""
        us = max(float(self.mean @ terms.values), 1e-3)
        variance = float(terms.values @ self.covariance @ terms.values) + terms.spread_us**2
        return us, math.sqrt(variance / us**2 + self.noise**2)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "names": list(NAMES),
            "mean": self.mean.tolist(),
            "covariance": self.covariance.tolist(),
            "noise": self.noise,
            "networks": self.networks,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Correction:
        """Reads what `to_json` wrote."""
        return cls(
            mean=np.asarray(record["mean"], np.float64),
            covariance=np.asarray(record["covariance"], np.float64),
            noise=record["noise"],
            networks=record["networks"],
        )


def prior() -> Correction:
    """What holds when no network was measured whole."""
    mean = np.array([*(_PRIOR[name][0] for name in OVERHEADS), *[1.0] * len(_SUMS)])
    covariance = np.diag([*(_PRIOR[name][1] ** 2 for name in OVERHEADS), *[_OWN_SPREAD**2] * len(_SUMS)])
    covariance += _FAMILY_SPREAD**2 * alike(lambda family, number_format, _: (family, number_format))
    return Correction(mean=mean, covariance=covariance, noise=_FIRST_NOISE, networks=0)


def alike(what: Callable[[str, str, str], object]) -> Array:
    """1 where two sums have in common what is asked for, of their family, format and size; 0 elsewhere."""
    marks = [None] * len(OVERHEADS) + [what(*each) for each in _SUMS]
    return np.array([[float(left is not None and left == right) for right in marks] for left in marks])


def fit_correction(terms: Sequence[Terms], measured_us: Array, first: Correction | None = None) -> Correction:
    """The posterior given networks measured whole; outliers count less: a regression with errors of Student's t."""
    first = first or prior()
    if not len(terms):
        return first
    x = np.asarray([each.values for each in terms]) / measured_us[:, None]
    own = np.asarray([each.spread_us for each in terms]) / measured_us
    precision = np.linalg.inv(first.covariance)
    noise = first.noise
    trust = np.ones(len(terms))
    for _ in range(_ROUNDS):
        weights = trust / (own**2 + noise**2)
        covariance = np.linalg.inv(precision + (x * weights[:, None]).T @ x)
        mean = covariance @ (precision @ first.mean + x.T @ weights)
        squared = np.square(x @ mean - 1)
        fitted = squared + np.einsum("ij,jk,ik->i", x, covariance, x)
        # Half of the networks decide, so that a few that fit badly do not widen all.
        noise = max(_LEAST_NOISE, math.sqrt(max(0.0, float(np.median(fitted / _MEDIAN_SQUARE - own**2)))))
        trust = (_FREEDOM + 1) / (_FREEDOM + squared / (own**2 + noise**2))
    return Correction(mean=mean, covariance=np.asarray(covariance, np.float64), noise=noise, networks=len(terms))
