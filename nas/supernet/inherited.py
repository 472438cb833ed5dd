"""What a candidate scores with the weights that it shares, untrained: milliseconds instead of a training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from bitwright.nas.elastic import Elastic, inherit
from bitwright.nas.space import Candidate, hash_of
from bitwright.nas.supernet.kept_scores import KeptScores
from bitwright.nas.supernet.recalibration import recalibrate
from bitwright.nas.supernet.task import Arguments, Task

# Every network takes its statistics from the same batches, whatever the training's seed was.
_CALIBRATION_SEED = 0


@dataclass(frozen=True, kw_only=True)
class InheritedAccuracy:
    """A callable: candidate to score.

    Scores are kept under the hash of the architecture, which candidates that differ in formats only share, in a
    folder under the hash of the shared weights, so that scores of other weights are never taken for these.

    Attributes:
        elastic: with trained weights (`train_supernet`, `load_supernet`), which must not change any more.
        task: scores on its validation samples.
        folder: where scores are kept.
        calibration: training batches for the statistics of batch norms (`SupernetSettings.calibration`).
    """

    elastic: Elastic
    task: Task
    folder: Path
    calibration: int = 4

    def __getstate__(self) -> dict[str, Any]:
        """Workers take their own batches."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __call__(self, candidate: Candidate) -> float:
        """The task's score of the candidate's network."""
        name = hash_of(dict(self.elastic.space.architecture(candidate)))
        return self.kept.score(name, lambda: self.task.score(self.network(candidate)))

    def network(self, candidate: Candidate) -> nn.Module:
        """The candidate's network with copies of the shared weights and its own statistics, in eval mode."""
        network = inherit(self.elastic, candidate)
        recalibrate(network, self.calibration_batches)
        return network

    @cached_property
    def calibration_batches(self) -> tuple[Arguments, ...]:
        """Arguments of the first training batches."""
        return tuple(_arguments(self.task, self.calibration))

    @cached_property
    def kept(self) -> KeptScores:
        """The scores of these weights."""
        digest = hashlib.sha256(json.dumps([dict(self.task.fingerprint), self.calibration], sort_keys=True).encode())
        for name, value in self.elastic.largest.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return KeptScores(self.folder / digest.hexdigest()[:16])


def _arguments(task: Task, count: int) -> Iterator[Arguments]:
    return (arguments for arguments, _ in islice(task.batches(_CALIBRATION_SEED), count))
