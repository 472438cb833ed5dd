"""What every side of the contest in sparse and pruned networks does alike: trained on, then quantized in training.

Both trainings have the same data, loss, rate and number of epochs for every side (see `qat_exchange`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import qat_exchange
import torch
from networks import load_network
from qat_exchange import Request, Trainee


@dataclass(frozen=True, kw_only=True)
class SparseRequest(Request):
    """One network made sparse or small.

    Attributes:
        variant: `2:4`, or `pruned`.
        sparse_epochs: of training in float, with the zeros or while channels leave and after.
        share: of the cost that is to stay; what the cost is, is the side's own.
        table: of measured kernels, for a side that predicts latencies.
        prune_only: stop behind the pruning: only shapes are asked for.
    """

    variant: str
    sparse_epochs: int
    share: float = 1.0
    table: str = ""
    prune_only: bool = False

    @property
    def sparse_steps(self) -> int:
        """Steps of the training in float."""
        return self.sparse_epochs * (len(self.images("train")) // self.batch)

    def fit(self, trainee: Trainee) -> None:
        """The training in float, by the loop of the other one."""
        teacher = load_network(self.network, self.library)
        qat_exchange._fit(trainee, teacher, _base(self, epochs=self.sparse_epochs))


def _base(request: SparseRequest, **changed: Any) -> Request:
    fields = {name: getattr(request, name) for name in Request.__dataclass_fields__}
    return Request(**{**fields, **changed})


def serve(
    packages: tuple[str, ...],
    make_small: Callable[[torch.nn.Module, SparseRequest], torch.nn.Module],
    quantize: Callable[[torch.nn.Module, SparseRequest], Trainee],
) -> None:
    """Runs what the command line names and writes its score, its shapes and the zeros of its weights.

    Args:
        packages: whose versions are reported.
        make_small: makes the float network sparse or small and trains it on.
        quantize: puts the side's quantization in place.
    """
    request = SparseRequest(**json.loads(Path(sys.argv[1]).read_text()))
    torch.manual_seed(request.seed)
    start = time.perf_counter()
    small = make_small(load_network(request.network, request.library).requires_grad_(True), request)
    answer: dict[str, Any] = {
        "shapes": {name: list(tensor.shape) for name, tensor in small.state_dict().items() if tensor.dim()},
        "versions": {name: metadata.version(name) for name in packages},
        "small_s": time.perf_counter() - start,
    }
    if not request.prune_only:
        teacher = load_network(request.network, request.library)
        trainee = quantize(small, request)
        qat_exchange._fit(trainee, teacher, request)
        forward = trainee.evaluate()
        for part in ("validation", "test"):
            answer[part] = qat_exchange._score(forward, _base(request, part=part))
        weights = [weight for weight in small.parameters() if weight.dim() > 1]
        answer["zeros"] = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    Path(sys.argv[2]).write_text(json.dumps(answer, indent=1))
