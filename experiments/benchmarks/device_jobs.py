"""Small jobs whose results can be told right from wrong, and the process that drives them; for the row on transport.

Each job times a small and a large matrix product, in an order that its number decides, so the ratio of its result says
whether it is that job's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.hw_constraints.transport import Device, Job, JobResult, Journal, run_jobs
from bitwright.hw_constraints.transport.content import file_content
from bitwright.hw_constraints.transport.driver import Retries

_PAIRS = 10  # of models; other jobs differ in their seed
_SMALL, _LARGE, _ROWS = 8, 256, 64  # 1024 times the multiply-accumulates
_RETRIES = Retries(tries=12, first_s=0.1, longest_s=2.0, starts=20)
_LIST = "transport_jobs"


def write_models(folder: Path) -> None:
    """The models of all jobs."""
    for pair in range(_PAIRS):
        for width in (_SMALL, _LARGE):
            _write_product(folder / f"{pair}-{width}.onnx", width, constant=1.0 + pair)


def jobs_of(numbers: Sequence[int], models: Path, nonce: str) -> list[Job]:
    """The jobs with these numbers."""
    return [_job(number, models, nonce) for number in numbers]


def is_right(result: JobResult, number: int) -> bool:
    """Whether a result is one of this job: its candidates in their order, and which of them takes longer."""
    names = [f"{number}-{width}" for width in _widths(number)]
    if list(result.measurement.times_us) != names:
        return False
    medians = [result.measurement.latency(name).median_us for name in names]
    return (medians[0] < medians[1]) == (_widths(number)[0] == _SMALL)


def drive(request: dict[str, Any]) -> None:
    """Brings an account's jobs to an end; started again, it goes on."""
    journal = Journal(Path(request["journal"]))
    jobs = jobs_of(request["numbers"], Path(request["models"]), journal.nonce(_LIST))
    with Device(request["address"]) as device:
        run_jobs(device, jobs, journal, retries=_RETRIES, say=lambda text: print(text, file=sys.stderr, flush=True))


def nonce_of(journal: Journal) -> str:
    """Of the jobs in a journal that `drive` has written."""
    return journal.nonce(_LIST)


def _job(number: int, models: Path, nonce: str) -> Job:
    artefacts = {
        f"{number}-{width}": file_content(models / f"{number % _PAIRS}-{width}.onnx") for width in _widths(number)
    }
    return Job(
        artefacts=artefacts,
        runtime="onnxruntime",
        seed=number,
        min_rounds=5,
        max_seconds=0.05,
        target_half_width=0.5,
        nonce=nonce,
    )


def _widths(number: int) -> tuple[int, int]:
    return (_SMALL, _LARGE) if number % 2 else (_LARGE, _SMALL)


def _write_product(path: Path, width: int, *, constant: float) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.full((width, width), constant, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, _ROWS, width))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


if __name__ == "__main__":
    drive(json.loads(sys.argv[1]))
