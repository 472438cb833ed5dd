"""What is expected of candidates: known objectives as they are, the others by surrogates, both as one improvement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from bitwright.nas.sampling import surrogate
from bitwright.nas.sampling.archive import Archive
from bitwright.nas.sampling.grid import Floats, Places
from bitwright.nas.sampling.improvement import expected_improvement
from bitwright.nas.sampling.known import Known


class Scale:
    """Features in units of their spread over a basis; what is not known of a candidate is the basis' median."""

    def __init__(self, known: Known, basis: Sequence[Places]) -> None:
        self.known, self._names = known, known.names(basis)
        rows = known.features(basis, self._names)
        self._low, self._middle = np.nanmin(rows, axis=0), np.nanmedian(rows, axis=0)
        spread = np.nanmax(rows, axis=0) - self._low
        self._unit = np.where(spread > 0, spread, 1.0)

    def features(self, candidates: Sequence[Places]) -> Floats:
        """[candidates, features], within about 0…1."""
        rows = self.known.features(candidates, self._names)
        scaled: Floats = (np.where(np.isnan(rows), self._middle, rows) - self._low) / self._unit
        return scaled


class Expectation:
    """Expected hypervolume improvement of candidates over the front of an archive.

    The point of reference lies just beyond the worst that was seen or, of a known objective, that could be chosen.

    Args:
        archive: holds at least one scored candidate.
        pool: candidates to choose from; an objective counts as known when it is known of all of them.
        basis: candidates whose spread is the unit of features; the same ones as long as a search goes on.
    """

    def __init__(self, archive: Archive, pool: Sequence[Places], basis: Sequence[Places]) -> None:
        self.archive, self.known = archive, archive.known
        self._scale = Scale(self.known, basis)
        known = archive.turned(self.known.figures(pool))
        self._unknown = np.flatnonzero(np.isnan(known).any(axis=0)).tolist()
        self._earlier = self._learn_earlier()
        self._surrogates = self._learn()
        self._refusal = self._learn_refusal()
        self._reference = np.fmax(archive.losses.max(axis=0), np.fmax.reduce(known, axis=0))
        self._reference += 1e-3 * (self._reference - archive.losses.min(axis=0)) + 1e-12
        self._front = archive.losses[archive.front()]
        if archive.pending:
            self._front = np.concatenate([self._front, self._expected(archive.pending)[0]])

    def improvement(self, candidates: Sequence[Places]) -> Floats:
        """Of each candidate, times the probability that it will not be refused after all, [candidates]."""
        mean, deviation = self._expected(candidates)
        order = sorted(range(mean.shape[1]), key=lambda j: j in self._unknown)  # fewest boxes along what is unsure
        gain = expected_improvement(mean[:, order], deviation[:, order], self._front[:, order], self._reference[order])
        if self._refusal is None:
            return gain
        refused, unsure = self._refusal(self._features(candidates))
        chance: Floats = ndtr((0.5 - refused) / unsure)
        return gain * chance

    def _expected(self, candidates: Sequence[Places]) -> tuple[Floats, Floats]:
        mean = self.archive.turned(self.known.figures(candidates))
        deviation = np.zeros_like(mean)
        features = self._features(candidates)
        for j, predict in zip(self._unknown, self._surrogates, strict=True):
            mean[:, j], deviation[:, j] = predict(features)
        return mean, deviation

    def _learn(self) -> list[surrogate.Surrogate]:
        features, losses = self._features(self.archive.scored), self.archive.losses
        pending = self._features(self.archive.pending) if self.archive.pending else None
        return [surrogate.fit(features, losses[:, j], pending=pending) for j in self._unknown]

    def _learn_earlier(self) -> list[surrogate.Surrogate]:
        """An earlier study as surrogates whose expectations are features here: how much they say is learned, too."""
        places, values = self.known.earlier_scored()
        kept = [index for index, each in enumerate(places) if not self.known.refuses(each)]
        if len(kept) < 2:
            return []
        losses, features = self.archive.turned(values)[kept], self._scale.features([places[index] for index in kept])
        unit = np.ptp(losses, axis=0)
        return [surrogate.fit(features, losses[:, j] / (unit[j] or 1.0)) for j in self._unknown]

    def _learn_refusal(self) -> surrogate.Surrogate | None:
        """Of 0 and 1: whether a candidate is refused by what only its evaluation shows, such as a measured limit."""
        if not self.archive.refused:
            return None
        told = (*self.archive.scored, *self.archive.refused)
        refused = np.repeat([0.0, 1.0], [len(self.archive.scored), len(self.archive.refused)])
        return surrogate.fit(self._features(told), refused, clip=False)

    def _features(self, candidates: Sequence[Places]) -> Floats:
        scaled = self._scale.features(candidates)
        return np.column_stack([scaled, *(predict(scaled)[0] for predict in self._earlier)])
