"""ExecuTorch on the CPU, XNNPACK and portable kernels; reads `.pte`.

What it runs is read from its event trace (ETDump): XNNPACK's operators by their own names, portable kernels by the
operator that they were registered for. A program names neither its inputs nor its outputs: they are called `input`,
`output`, or `input_0`, `input_1`, … in their order.

Rubbish and torn files are refused. A program with single bytes changed can pass ExecuTorch's own verification and abort
the process (about one in fifty does, release 1.5.1); `measure_in_subprocess` then says so and lives on.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.backends.base import (
    Arrays,
    ExecutedNode,
    KernelTime,
    PackagedBackend,
    Session,
    TensorSpec,
    artifact_label,
    check_inputs,
    one_line,
)
from bitwright.hw_constraints.backends.native_messages import native_messages
from bitwright.hw_constraints.backends.xnnpack import precision_of_operator
from bitwright.quant.errors import InputError

_METHOD = "forward"
_NATIVE_CALL, _DELEGATE_CALL = "native_call_", "DELEGATE_CALL"
_NUMBER = re.compile(r" #\d+$")  # XNNPACK counts equal operators of a delegated part
# c10::ScalarType: executorch/runtime/core/portable_type/scalar_type.h
_DTYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"} | {
    11: "bool",
    15: "bfloat16",
}


class ThreadPool:
    """ExecuTorch's threads: one pool a process, and whatever was loaded on a pool is dead when its size changes."""

    def __init__(self) -> None:
        self.threads = 0
        self.generation = 0

    def hold(self, threads: int) -> int:
        """Makes the pool that large; returns a number that changes when programs have to be loaded again."""
        if threads != self.threads:
            with native_messages():
                _runtime()._unsafe_reset_threadpool(threads)
            self.threads = threads
            self.generation += 1
        return self.generation


POOL = ThreadPool()


class ExecuTorchSession:
    """A program's method in ExecuTorch's runtime."""

    def __init__(self, artifact: Path | bytes, *, threads: int) -> None:
        self.threads = threads
        self.settings = {"threadpool": str(threads), "program_verification": "InternalConsistency"}
        self._label = artifact_label(artifact)
        self._artifact = artifact if isinstance(artifact, bytes) else str(artifact)
        self._generation = POOL.hold(threads)
        self._program, self._method = self._load()
        self.input_infos, self.output_infos = self._described()
        self._kernels: list[KernelTime] = []

    def _load(self, *, trace: bool = False) -> tuple[Any, Any]:
        runtime = _runtime()
        load = runtime._load_program_from_buffer if isinstance(self._artifact, bytes) else runtime._load_program
        try:
            with native_messages() as messages:
                verification = runtime.Verification.InternalConsistency
                program = load(self._artifact, enable_etdump=trace, program_verification=verification)
                return program, program.load_method(_only_method(program))
        except RuntimeError as error:  # it only has a number; the reason was printed
            message = f"{one_line(error)}: {messages.last}"
            raise InputError(f"{self._label}: executorch cannot load it: {message}") from error

    def _described(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        meta = self._method.method_meta()
        try:
            inputs = [meta.input_tensor_meta(index) for index in range(meta.num_inputs())]
            outputs = [meta.output_tensor_meta(index) for index in range(meta.num_outputs())]
        except (RuntimeError, IndexError) as error:
            message = f"its inputs or outputs are not all tensors ({one_line(error)})"
            raise InputError(f"{self._label}: executorch cannot load it: {message}") from error
        return _tensor_specs("input", inputs), _tensor_specs("output", outputs)

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs once; see `Session.run`."""
        generation = POOL.hold(self.threads)
        if generation != self._generation:  # another session has changed the pool in between
            self._generation = generation
            self._program, self._method = self._load()
        return self._run(self._method, inputs)

    def _run(self, method: Any, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        import torch

        if len(inputs) != len(self.input_infos):
            check_inputs(inputs, self.input_infos)
        try:
            results = method([torch.from_numpy(inputs[spec.name]) for spec in self.input_infos])
        except (RuntimeError, KeyError) as error:
            check_inputs(inputs, self.input_infos)
            raise InputError(f"{self._label}: executorch cannot run it: {one_line(error)}") from error
        return {spec.name: result.numpy() for spec, result in zip(self.output_infos, results, strict=True)}

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """XNNPACK's operators, in whole microseconds, and portable kernels; see `Session.profile`."""
        POOL.hold(self.threads)
        program, method = self._load(trace=True)
        for _ in range(runs + 1):
            self._run(method, inputs)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "trace.etdp")
            program.write_etdump_result_to_file(path, None)
            self._kernels = read_etdump(path)
        return self._kernels

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        """The operators of the last profile, or of a run on zeros: the program's own graph is not in its file's API."""
        if not self._kernels:
            sizes = [[size or 0 for size in spec.shape or ()] for spec in self.input_infos]
            infos = zip(self.input_infos, sizes, strict=True)
            self.profile({spec.name: np.zeros(size, spec.dtype) for spec, size in infos}, 1)
        return tuple(ExecutedNode(name=kernel.name, op=kernel.op) for kernel in self._kernels)


def read_etdump(path: str) -> list[KernelTime]:
    """Medians of the kernel times in an ETDump; the first run (warm-up) is left out.

    Raises:
        InputError: it holds no run.
    """
    with warnings.catch_warnings(), native_messages():
        warnings.simplefilter("ignore")  # that no intermediate results were stored
        from executorch.devtools import Inspector

        blocks = [block for block in Inspector(etdump_path=path).event_blocks if block.name.startswith("Execute")]
    if not blocks:
        raise InputError(f"{path}: executorch's trace holds no run")
    block = max(blocks, key=lambda block: len(block.events[0].perf_data.raw))
    inside_delegates = {event._instruction_id for event in block.events if event.is_delegated_op}
    events = [event for event in block.events if _is_kernel(event, inside_delegates)]
    return [_kernel_time(position, event) for position, event in enumerate(events)]


def _is_kernel(event: Any, inside_delegates: set[int]) -> bool:
    """Whether an event is work of its own, and not the call around work that has events of its own."""
    if event.name == _DELEGATE_CALL:
        return event._instruction_id not in inside_delegates
    return bool(event.is_delegated_op) or event.name.startswith(_NATIVE_CALL)


def _kernel_time(position: int, event: Any) -> KernelTime:
    op = _NUMBER.sub("", event.name.removeprefix(_NATIVE_CALL))
    times_ms: list[float] = event.perf_data.raw
    return KernelTime(
        name=f"{op}#{position}",
        op=op,
        time_us=median(times_ms[1:] or times_ms) * 1e3,
        provider="CPU XNNPACK" if event.is_delegated_op else "CPU",
        precision=precision_of_operator(op),
    )


def _only_method(program: Any) -> str:
    """`forward`, or the one method that there is.

    Raises:
        InputError: there are several others.
    """
    names = [program.get_method_name(index) for index in range(program.num_methods())]
    if _METHOD in names:
        return _METHOD
    if len(names) != 1:
        raise InputError(f"the program has the methods {', '.join(sorted(names))}; one of them has to be {_METHOD!r}")
    return str(names[0])


def _tensor_specs(name: str, infos: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """A dimension that may be smaller reads as its upper bound: the program has no more."""
    return tuple(
        TensorSpec(
            name=name if len(infos) == 1 else f"{name}_{index}",
            dtype=_DTYPES.get(info.dtype(), ""),
            shape=tuple(info.sizes()),
        )
        for index, info in enumerate(infos)
    )


def _runtime() -> Any:
    from executorch.extension.pybindings import portable_lib

    return portable_lib


class ExecuTorchBackend(PackagedBackend):
    """ExecuTorch's runtime as its wheel brings it."""

    name = "executorch"
    reads = ("pte",)

    def _open(self, artifact: Path | bytes, *, threads: int) -> Session:
        return ExecuTorchSession(artifact, threads=threads)


BACKEND = ExecuTorchBackend()
