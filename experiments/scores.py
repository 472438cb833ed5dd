"""Figures of networks over the same samples: what each reaches, and how each compares with the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bitwright.experiments.inputs import row_count
from bitwright.experiments.metrics import Agreement, Metric, create_metric
from bitwright.experiments.recipe import AGREEMENT
from bitwright.hw_constraints.figures import Interval


@dataclass(frozen=True, kw_only=True)
class Score:
    """Metrics of one network, over so many samples; `counted` is the built-in one, as far as there is one."""

    metrics: Mapping[str, float]
    samples: int
    counted: Metric | None = None

    @property
    def interval(self) -> Interval | None:
        """The built-in metric with its 95 % interval over the choice of samples; None where that is not known."""
        return None if self.counted is None else self.counted.interval()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate against the reference, sample by sample; None where a user's own metric decides."""

    agreement_percent: float | None
    decisions: int
    sqnr_db: float
    samples: int
    difference: Interval | None = None
    sqnr_interval: Interval | None = None


class Tally:
    """Counts batches of several networks for one built-in metric; the first network is the reference."""

    def __init__(self, networks: int, metric: str, *, classes: int | None, ignore_label: int | None) -> None:
        """Nothing counted.

        Raises:
            InputError: there is no such metric, or it needs to know the number of classes.
        """
        self.metric, self.samples = metric, 0
        counted = range(networks)
        self._counters = [create_metric(metric, classes=classes, ignore_label=ignore_label) for _ in counted]
        self._agreements = [Agreement() for _ in counted]
        self._hits: list[list[torch.Tensor]] = [[] for _ in counted]

    def update(self, logits: Sequence[torch.Tensor], labels: torch.Tensor) -> None:
        """Counts one batch: of each network float `[N, classes, …]`, and int64 `[N, …]`."""
        for each, counter, agreement, hit in zip(logits, self._counters, self._agreements, self._hits, strict=True):
            counter.update(each, labels)
            agreement.update(logits[0], each)
            hit.append(each.argmax(1) == labels)
        self.samples += row_count(labels)

    @property
    def scores(self) -> list[Score]:
        """Of each network."""
        return [
            Score(metrics={self.metric: each.value()}, samples=self.samples, counted=each) for each in self._counters
        ]

    @property
    def comparisons(self) -> list[Comparison]:
        """Of each network but the first with the first; paired where every sample decides once."""
        paired = self.metric in ("top1", AGREEMENT) and self._hits[0][0].dim() == 1
        reference = torch.cat(self._hits[0])
        return [
            Comparison(
                agreement_percent=each.percent,
                decisions=each.decisions,
                sqnr_db=each.sqnr_db,
                samples=self.samples,
                difference=paired_interval(reference, torch.cat(hit)) if paired else None,
                sqnr_interval=each.sqnr_interval(),
            )
            for each, hit in zip(self._agreements[1:], self._hits[1:], strict=True)
        ]


def paired_interval(reference: torch.Tensor, candidate: torch.Tensor) -> Interval:
    """The difference of two hit rates in points, candidate - reference, with its 95 % interval.

    Paired over the samples: with b samples that only the candidate hits and c that only the reference hits, the
    adjusted Wald interval of Bonett & Price (2012), which is honest for b = c = 0, too: one is added to each.

    Args:
        reference: bool [N].
        candidate: bool [N].
    """
    count = len(reference)
    won, lost = int((candidate & ~reference).sum()), int((reference & ~candidate).sum())
    p, q = (won + 1) / (count + 2), (lost + 1) / (count + 2)
    spread = 1.96 * math.sqrt((p + q - (p - q) ** 2) / (count + 2))
    value = (won - lost) / count
    return Interval(value=100 * value, low=100 * min(value, p - q - spread), high=100 * max(value, p - q + spread))
