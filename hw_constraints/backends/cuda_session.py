"""A torch module, callable or `.pt2` file on a CUDA device: what eager mode and Inductor share there.

`run` includes the copies to and from the device, `profile` only the kernels on it. Kernels are read from torch's own
trace (Kineto), where each is linked to the operator that launched it.

Written by the documentation of torch.profiler and not yet run on a device.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch._C._autograd import DeviceType

from bitwright.hw_constraints.backends.base import Arrays, Backend, KernelTime, TensorSpec
from bitwright.hw_constraints.backends.cuda_device import device_name
from bitwright.hw_constraints.backends.torch_session import (
    TorchSession,
    load_torch,
    median_kernels,
    precision_of_operands,
)

Kernel = tuple[str, str, float]


class CudaSession(TorchSession):
    """A function whose tensors are on the device."""

    def __init__(self, function: Callable[..., Any], *, threads: int, inputs: Sequence[TensorSpec]) -> None:
        super().__init__(function, threads=threads, inputs=inputs)
        self.settings = {**self.settings, "device": device_name(), "allow_tf32": "False"}

    def _call(self, function: Callable[..., Any], inputs: Arrays) -> dict[str, torch.Tensor]:
        # Convolutions would use TF32 unasked, and a float reference is to be one.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False):
            results = super()._call(function, inputs)
        return {name: value.cpu() for name, value in results.items()}  # waits for the device

    def _place(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).cuda()

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """Kernels on the device; see `Session.profile`."""
        self._call(self._profiled, inputs)
        traces = []
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        for _ in range(runs):  # a trace of its own each: the device runs behind the host's marks
            with torch.profiler.profile(activities=activities, record_shapes=True) as trace:
                self._call(self._profiled, inputs)
            traces.append(device_kernels(_events(trace)))
        self._kernels = median_kernels(traces, "CUDA")
        return self._kernels


def on_device(artifact: Any, backend: Backend) -> tuple[Callable[..., Any], tuple[TensorSpec, ...]]:
    """What a torch backend is handed, with its weights on the device; a module is copied, not moved.

    Raises:
        InputError: it is neither a module, a callable nor a `.pt2` file that can be read.
    """
    if isinstance(artifact, torch.nn.Module):
        artifact = copy.deepcopy(artifact).cuda()
    return load_torch(artifact, backend, device="cuda")


def device_kernels(events: Iterable[Any]) -> list[Kernel]:
    """(kernel, precision, µs) in the order of the device, without copies between host and device.

    Args:
        events: Kineto's, with `device_type`, `name`, `start_ns`, `duration_ns`, `correlation_id`, `dtypes` and, on the
            device, `linked_correlation_id` of the operator that launched them.
    """
    events = list(events)
    operands: dict[int, Sequence[str]] = defaultdict(tuple)
    for event in events:
        if event.device_type() == DeviceType.CPU:
            operands[event.correlation_id()] = event.dtypes()
    kernels = [event for event in events if event.device_type() == DeviceType.CUDA]
    return [
        (event.name(), precision_of_operands(operands[event.linked_correlation_id()]), event.duration_ns() / 1e3)
        for event in sorted(kernels, key=lambda event: event.start_ns())
        if not event.name().startswith(("Memcpy", "Memset"))
    ]


def _events(trace: torch.profiler.profile) -> Iterable[Any]:
    results: Any = trace.profiler.kineto_results if trace.profiler else None
    return results.events() if results else ()
