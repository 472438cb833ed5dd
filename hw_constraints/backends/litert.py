"""LiteRT (formerly TensorFlow Lite) on the CPU with its XNNPACK delegate on; reads `.tflite`.

A file's nodes have no names: each is called by the tensor that it computes. What XNNPACK makes of the nodes that it
takes over is read from LiteRT's own profiler, see `litert_profiler`; which nodes those are, from the execution plan.
"""

from __future__ import annotations

import re
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
from bitwright.hw_constraints.backends.litert_plan import ExecutionPlan
from bitwright.hw_constraints.backends.litert_profiler import Event, profiled_runs
from bitwright.hw_constraints.backends.native_messages import native_messages
from bitwright.hw_constraints.backends.xnnpack import precision_of_operator
from bitwright.quant.errors import InputError

_NODE = re.compile(r"Node number (\d+) ")
_DYNAMIC = -1  # in `shape_signature`
_PRECISION_OF = {"int8": "int8", "uint8": "int8", "int16": "int16", "float32": "float32", "float16": "float16"}


class LiteRTSession:
    """A model in LiteRT's interpreter."""

    def __init__(self, artifact: Path | bytes, *, threads: int) -> None:
        self.threads = threads
        self.settings = {"num_threads": str(threads), "delegate": "XNNPACK"}
        self._label = artifact_label(artifact)
        self._artifact = artifact if isinstance(artifact, bytes) else str(artifact)
        with native_messages():
            self._interpreter, self._plan = self._load()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._positions = {details["name"]: details["index"] for details in (*inputs, *outputs)}
        self._shapes = {details["name"]: tuple(map(int, details["shape"])) for details in inputs}
        self.input_infos = tuple(map(_tensor_spec, inputs))
        self.output_infos = tuple(map(_tensor_spec, outputs))
        self._kernels: list[Event] = []

    def _load(self) -> tuple[Any, ExecutionPlan]:
        from ai_edge_litert.interpreter import Interpreter

        argument = "model_content" if isinstance(self._artifact, bytes) else "model_path"
        interpreter = None
        try:
            interpreter = Interpreter(**{argument: self._artifact}, num_threads=self.threads)
            interpreter.allocate_tensors()
            return interpreter, ExecutionPlan(interpreter)
        except (ValueError, RuntimeError) as error:  # names that are no text, too
            message = self._with_layer(one_line(error), interpreter)
            raise InputError(f"{self._label}: litert cannot load it: {message}") from error

    def _with_layer(self, message: str, interpreter: Any) -> str:
        """The message with the name of the node whose number it tells."""
        number = _NODE.search(message)
        if number is None or interpreter is None:
            return message
        try:
            return f"{message} (it computes {ExecutionPlan(interpreter).name_of(int(number.group(1)))!r})"
        except (ValueError, IndexError):  # a damaged file's names need not be text
            return message

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs once; see `Session.run`."""
        if len(inputs) != len(self.input_infos):  # it would take what is left from the run before
            check_inputs(inputs, self.input_infos)
        try:
            for name, array in inputs.items():
                if array.shape != self._shapes[name]:
                    self._resize(name, array.shape)
                self._interpreter.set_tensor(self._positions[name], array)
            self._interpreter.invoke()
        except (ValueError, RuntimeError, KeyError) as error:
            check_inputs(inputs, self.input_infos)
            message = self._with_layer(one_line(error), self._interpreter)
            raise InputError(f"{self._label}: litert cannot run it: {message}") from error
        return {spec.name: self._interpreter.get_tensor(self._positions[spec.name]) for spec in self.output_infos}

    def _resize(self, name: str, shape: tuple[int, ...]) -> None:
        check_inputs({name: np.empty(shape, np.bool_)}, [spec for spec in self.input_infos if spec.name == name])
        self._interpreter.resize_tensor_input(self._positions[name], shape, strict=True)
        with native_messages():
            self._interpreter.allocate_tensors()
        self._shapes[name] = shape

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """XNNPACK's operators and the nodes outside, in whole microseconds; see `Session.profile`."""
        check_inputs(inputs, self.input_infos)
        traces = profiled_runs(self._artifact, inputs, self.threads, runs)
        self._kernels = traces[0]
        return [
            KernelTime(
                name=_name(position, event),
                op=event.op,
                time_us=median(trace[position].time_us for trace in traces),
                provider="CPU XNNPACK" if event.is_delegated else "CPU",
                precision=self._precision(event),
            )
            for position, event in enumerate(self._kernels)
        ]

    def _precision(self, event: Event) -> str:
        if event.is_delegated:
            return precision_of_operator(event.op)
        return _PRECISION_OF.get(self._plan.dtype_read_by(event.position), "other")

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        """XNNPACK's operators and the nodes outside, in the order of a run; see `Session.executed_graph`."""
        if not self._kernels:
            zeros = {spec.name: np.zeros(self._shapes[spec.name], spec.dtype) for spec in self.input_infos}
            self.profile(zeros, 1)
        originals = self._plan.originals(self._kernels)
        return tuple(
            ExecutedNode(name=_name(position, event), op=event.op, originals=originals[position])
            for position, event in enumerate(self._kernels)
        )


def _name(position: int, event: Event) -> str:
    return f"{event.op}#{position}"


def _tensor_spec(details: dict[str, Any]) -> TensorSpec:
    shape = tuple(None if size == _DYNAMIC else int(size) for size in details["shape_signature"])
    quantization = details["quantization_parameters"]
    scales: Sequence[Any] = quantization["scales"]
    dtype = np.dtype(details["dtype"]).name
    if len(scales) != 1:
        return TensorSpec(name=details["name"], dtype=dtype, shape=shape)
    zero_point = int(quantization["zero_points"][0])
    return TensorSpec(name=details["name"], dtype=dtype, shape=shape, scale=float(scales[0]), zero_point=zero_point)


class LiteRTBackend(PackagedBackend):
    """LiteRT's interpreter with XNNPACK."""

    name = "litert"
    reads = ("tflite",)
    package = "ai-edge-litert"
    module = "ai_edge_litert"

    def _open(self, artifact: Path | bytes, *, threads: int) -> Session:
        return LiteRTSession(artifact, threads=threads)


BACKEND = LiteRTBackend()
