"""A torch module, callable or `.pt2` file behind the session protocol: what eager, Inductor and both on CUDA share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy.typing as npt
import torch

from bitwright.hw_constraints.backends.artifacts import artifact_kind, check_kind
from bitwright.hw_constraints.backends.base import (
    Arrays,
    Backend,
    ExecutedNode,
    KernelTime,
    TensorSpec,
    check_inputs,
)
from bitwright.hw_constraints.backends.captured import captured_callable
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError

_PRECISION_OF = {
    "float": "float32",
    "double": "float64",
    "c10::Half": "float16",
    "c10::BFloat16": "bfloat16",
    "c10::Float8_e4m3fn": "fp8",
    "c10::Float8_e5m2": "fp8",
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
        self,
        function: Callable[..., Any],
        *,
        threads: int,
        inputs: Sequence[TensorSpec],
        profiled: Callable[..., Any] | None = None,
    ) -> None:
        """Wraps a function.

        Args:
            function: what runs.
            threads: of torch's operators.
            inputs: its arguments.
            profiled: the same function in a form that shows more to the profiler; the function itself when not given.
        """
        self.threads = threads
        self.settings: Mapping[str, str] = {"torch.num_threads": str(threads)}
        self._function = function
        self._profiled = function if profiled is None else profiled
        self.input_infos = tuple(inputs)
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
        tensors = {name: self._place(array) for name, array in inputs.items()}
        try:
            with torch.no_grad(), torch_threads(self.threads):
                return flatten_outputs(function(**tensors))
        except (RuntimeError, TypeError, AssertionError) as error:  # guards of an exported program assert
            raise InputError(f"{_label(function)}: torch cannot run it: {error}") from error

    def _place(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array)

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """Outermost operators of torch's own profiler; see `Session.profile`."""
        self._call(self._profiled, inputs)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as trace:
            for _ in range(runs):
                with torch.profiler.record_function(_RUN_MARK):
                    self._call(self._profiled, inputs)
        self._kernels = median_kernels(_outermost_kernels(trace), "CPU")
        return self._kernels

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        """The operators of the last profile: torch has no graph before it runs.

        Raises:
            InputError: nothing was profiled yet.
        """
        if not self._kernels:
            raise InputError("torch knows what it executes only after profile(inputs)")
        return tuple(ExecutedNode(name=kernel.name, op=kernel.op) for kernel in self._kernels)


def median_kernels(runs: Sequence[Sequence[tuple[str, str, float]]], provider: str) -> list[KernelTime]:
    """Medians over the runs that did the same as the first; of each run (operator, precision, µs) in order."""
    same = [run for run in runs if [event[0] for event in run] == [event[0] for event in runs[0]]]
    return [
        KernelTime(
            name=f"{op}#{index}",
            op=op,
            time_us=median(run[index][2] for run in same),
            provider=provider,
            precision=precision,
        )
        for index, (op, precision, _) in enumerate(runs[0])
    ]


def precision_of_operands(kinds: Sequence[str]) -> str:
    """What an operator reads, from the element types in torch's trace."""
    return next((_PRECISION_OF[kind] for kind in kinds if kind in _PRECISION_OF), "other")


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
            runs[-1].append((event.name(), precision_of_operands(event.dtypes()), event.duration_ns() / 1e3))
    return runs


def _label(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def load_torch(
    artifact: Any, backend: Backend, *, device: str = "cpu"
) -> tuple[Callable[..., Any], tuple[TensorSpec, ...]]:
    """What a torch backend is handed, as a callable with its arguments; a file's weights go to `device`.

    Raises:
        InputError: it is neither a module, a callable, a captured network nor a `.pt2` file that can be read.
    """
    if isinstance(artifact, CapturedModel):
        return captured_callable(artifact, device)
    if callable(artifact):
        return artifact, tuple(TensorSpec(name=name) for name in argument_names(artifact))
    if isinstance(artifact, str | Path | bytes | bytearray):
        check_kind(artifact, backend)
        if isinstance(artifact, str | Path) and artifact_kind(artifact):
            from bitwright.hw_constraints.backends.pt2 import read_pt2

            return read_pt2(Path(artifact), device)
    raise InputError(
        f"backend {backend.name!r} loads a torch.nn.Module, a callable, a CapturedModel or a .pt2 file, "
        f"not {type(artifact).__name__}"
    )


def argument_names(function: Callable[..., Any]) -> list[str]:
    """Names of the arguments that a module or callable cannot do without."""
    signature = inspect.signature(function.forward if isinstance(function, torch.nn.Module) else function)
    return [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
