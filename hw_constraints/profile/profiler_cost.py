"""What a runtime's profiler adds to each kernel that it times, by two chains of kernels that do next to nothing.

With n and 2n of them, let T be the time of a run without the profiler and K what the profiler says all kernels take:

    cost = ((K_2n - K_n) - (T_2n - T_n)) / (kernels_2n - kernels_n)

ONNX Runtime 1.31 adds 1.4 µs, more than its small kernels take; without taking it off, a network of many small layers
adds up to twice its time, and scaling everything down would take most off the large layers, which are right.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

from bitwright.hw_constraints.backends import Backend, Session

_CHAIN = 40  # kernels of the shorter chain
_WIDTH = 16  # elements of each tensor
_RUNS, _PROFILED, _ROUNDS = 200, 50, 3
_FUSED = 0.5  # of the kernels; below, the runtime has made one kernel of several and the chains say nothing


def profiler_us(backend: Backend, *, threads: int) -> float:
    """Microseconds a kernel; 0 where it is less than the profiler's resolution or the chains are fused."""
    short, long = (backend.load(_chain(length), threads=threads) for length in (_CHAIN, 2 * _CHAIN))
    batch = {"x": np.zeros((1, _WIDTH), np.float32)}
    costs = []
    for _ in range(_ROUNDS):
        runs = _run_us(long, batch) - _run_us(short, batch)
        kernels = [session.profile(batch, _PROFILED) for session in (short, long)]
        more = len(kernels[1]) - len(kernels[0])
        if more < _FUSED * _CHAIN:
            return 0.0
        total = [sum(kernel.time_us for kernel in each) for each in kernels]
        costs.append((total[1] - total[0] - runs) / more)
    return max(0.0, median(costs))


def _run_us(session: Session, batch: Any) -> float:
    session.run(batch)
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        session.run(batch)
        times.append(time.perf_counter() - started)
    return median(times) * 1e6


def _chain(length: int) -> bytes:
    """Softmax after Softmax: no runtime makes one kernel of two."""
    from onnx import TensorProto, helper

    values = ["x", *(f"y{index}" for index in range(length))]
    nodes = [
        helper.make_node("Softmax", [values[index]], [values[index + 1]], name=f"softmax{index}")
        for index in range(length)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, _WIDTH]) for name in (values[0], values[-1])]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized
