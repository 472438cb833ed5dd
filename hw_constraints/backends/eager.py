"""PyTorch eager mode: the reference that every other runtime is compared with. Loads a module or a callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy.typing as npt
import torch

from bitwright.hw_constraints.backends.base import (
    Arrays,
    ExecutedNode,
    KernelTime,
    Session,
    TensorSpec,
    check_inputs,
    check_threads,
)
from bitwright.quant.errors import InputError

_PRECISION_OF = {
    "float": "float32",
    "double": "float64",
    "c10::Half": "float16",
    "c10::BFloat16": "bfloat16",
    "signed char": "int8",
    "unsigned char": "int8",
    "c10::qint8": "int8",
    "c10::quint8": "int8",
}
_RUN_MARK = "bitwright run"


def flatten_outputs(result: Any) -> dict[str, torch.Tensor]:
    """Names the tensors that a forward returned: `output`, `output_0`, …, or a mapping's own keys.

    Raises:
        InputError: there is something else than tensors in it.
    """
    if isinstance(result, torch.Tensor):
        return {"output": result}
    if isinstance(result, Mapping) and all(isinstance(value, torch.Tensor) for value in result.values()):
        return {str(key): value for key, value in result.items()}
    if isinstance(result, tuple | list) and all(isinstance(value, torch.Tensor) for value in result):
        return {f"output_{index}": value for index, value in enumerate(result)}
    raise InputError(
        f"the model returned {type(result).__name__}; a tensor, or a tuple or mapping of tensors is needed"
    )


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets torch's intra-op threads, and sets them back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchSession:
    """A module or callable behind the session protocol.

    Inputs go in by the names of its arguments. It is not switched to evaluation mode: what is given is what runs.
    """

    def __init__(
        self, function: Callable[..., Any], *, threads: int, arguments: Sequence[str], profiled: Callable[..., Any]
    ) -> None:
        self.threads = threads
        self.settings: Mapping[str, str] = {"torch.num_threads": str(threads)}
        self._function = function
        self._profiled = profiled
        self.input_infos = tuple(TensorSpec(name=name) for name in arguments)
        self.output_infos: tuple[TensorSpec, ...] = ()
        self._kernels: list[KernelTime] = []

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs once; see `Session.run`."""
        results = self._call(self._function, inputs)
        self.output_infos = tuple(
            TensorSpec(name=name, dtype=str(value.dtype).removeprefix("torch."), shape=tuple(value.shape))
            for name, value in results.items()
        )
        return {name: value.numpy() for name, value in results.items()}

    def _call(self, function: Callable[..., Any], inputs: Arrays) -> dict[str, torch.Tensor]:
        check_inputs(inputs, self.input_infos)
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        try:
            with torch.no_grad(), torch_threads(self.threads):
                return flatten_outputs(function(**tensors))
        except (RuntimeError, TypeError) as error:
            raise InputError(f"{_label(function)}: torch cannot run it: {error}") from error

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """Outermost operators of torch's own profiler; see `Session.profile`."""
        self._call(self._profiled, inputs)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as trace:
            for _ in range(runs):
                with torch.profiler.record_function(_RUN_MARK):
                    self._call(self._profiled, inputs)
        traces = _outermost_kernels(trace)
        same = [trace for trace in traces if [event[0] for event in trace] == [event[0] for event in traces[0]]]
        self._kernels = [
            KernelTime(
                name=f"{op}#{index}",
                op=op,
                time_us=median(trace[index][2] for trace in same),
                provider="CPU",
                precision=precision,
            )
            for index, (op, precision, _) in enumerate(traces[0])
        ]
        return self._kernels

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        """The operators of the last profile: torch has no graph before it runs.

        Raises:
            InputError: nothing was profiled yet.
        """
        if not self._kernels:
            raise InputError("torch knows what it executes only after profile(inputs)")
        return tuple(ExecutedNode(name=kernel.name, op=kernel.op) for kernel in self._kernels)


def argument_names(function: Callable[..., Any]) -> list[str]:
    """Names of the arguments that a module or callable cannot do without."""
    signature = inspect.signature(function.forward if isinstance(function, torch.nn.Module) else function)
    return [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


def _outermost_kernels(trace: torch.profiler.profile) -> list[list[tuple[str, str, float]]]:
    """For each marked run (operator, precision, µs) of the operators that no other operator called, in order.

    Operators are `namespace::name`; Inductor's own fused kernels are `graph_N_cpp_fused_…`.
    """
    results: Any = trace.profiler.kineto_results if trace.profiler else None
    runs: list[list[tuple[str, str, float]]] = []
    covered_until = 0
    for event in sorted(results.events(), key=lambda event: (event.start_ns(), -event.duration_ns())):
        if event.name() == _RUN_MARK:
            runs.append([])
        elif ("::" in event.name() or event.name().startswith("graph_")) and event.start_ns() >= covered_until:
            covered_until = event.start_ns() + event.duration_ns()
            kinds = [_PRECISION_OF[kind] for kind in event.dtypes() if kind in _PRECISION_OF]
            runs[-1].append((event.name(), kinds[0] if kinds else "other", event.duration_ns() / 1e3))
    return runs


def _label(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def require_callable(artifact: Any, backend: str) -> Callable[..., Any]:
    """The same object, when it can be called.

    Raises:
        InputError: it cannot.
    """
    if not callable(artifact):
        raise InputError(f"backend {backend!r} loads a torch.nn.Module or a callable, not {type(artifact).__name__}")
    return artifact  # type: ignore[no-any-return]


class EagerBackend:
    """PyTorch eager mode on the CPU."""

    name = "eager"

    def available(self) -> str | None:
        """Always: torch is a dependency."""
        return None

    def version(self) -> str:
        """The version of torch."""
        return str(torch.__version__)

    def load(self, artifact: Any, *, threads: int = 1) -> Session:
        """Wraps a module or callable; see `Backend.load`."""
        check_threads(threads)
        function = require_callable(artifact, self.name)
        return TorchSession(function, threads=threads, arguments=argument_names(function), profiled=function)


BACKEND = EagerBackend()
