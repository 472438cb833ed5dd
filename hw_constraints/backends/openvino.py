"""OpenVINO on the CPU; reads ONNX files directly.

What it really runs is read from the compiled model's runtime graph (`get_runtime_model`: `layerType`,
`runtimePrecision`, `originalLayersNames`) and from the infer request's profiling counters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from bitwright.hw_constraints.runtime_settings import openvino_settings
from bitwright.quant.errors import InputError

_PRECISION_OF = {
    "u8": "int8",
    "i8": "int8",
    "u16": "int16",
    "i16": "int16",
    "f8e4m3": "fp8",
    "f8e5m2": "fp8",
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
}
# Their bias and scales are real-valued operands, too.
_WEIGHTED_LAYERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_NOT_EXECUTED = frozenset({"Input", "Output", "Const"})


class OpenVINOSession:
    """A model compiled by OpenVINO's CPU plugin."""

    def __init__(self, artifact: Path | bytes, *, threads: int) -> None:
        self.threads = threads
        self._artifact = artifact if isinstance(artifact, bytes) else str(artifact)
        self._label = artifact_label(artifact)
        self.settings = openvino_settings(artifact, threads=threads)
        self._compiled = self._compile()
        self._request = self._compiled.create_infer_request()
        self._counting: Any = None
        self._counted_runs = 0
        self.input_infos = tuple(map(_tensor_spec, self._compiled.inputs))
        self.output_infos = tuple(map(_tensor_spec, self._compiled.outputs))

    def _compile(self, **more: str) -> Any:
        import openvino

        core = openvino.Core()
        try:
            return core.compile_model(core.read_model(self._artifact), "CPU", {**self.settings, **more})
        except Exception as error:
            raise InputError(f"{self._label}: openvino cannot load it: {one_line(error)}") from error

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs once; see `Session.run`."""
        return self._run(self._request, inputs)

    def _run(self, request: Any, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        if len(inputs) != len(self.input_infos):  # it would take what is left from the run before
            check_inputs(inputs, self.input_infos)
        try:
            results = request.infer(dict(inputs))
        except Exception as error:
            check_inputs(inputs, self.input_infos)
            raise InputError(f"{self._label}: openvino cannot run it: {one_line(error)}") from error
        # The request writes its outputs in place on the next run.
        return {spec.name: results[index].copy() for index, spec in enumerate(self.output_infos)}

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """Kernel times from the profiling counters; see `Session.profile`.

        A counter is the mean, in whole µs, over all runs since compilation, the cold first one among them (1003, 804,
        670 … 79 µs, read after each of 50 runs), so that the runs since the n'-th of mean m' took
        (n m - n' m') / (n - n') each.
        """
        request = self._counting_model().create_infer_request()
        self._run(request, inputs)
        self._counted_runs += 1
        before, first = self._counted_runs, _counters(request)
        for _ in range(runs):
            self._run(request, inputs)
        self._counted_runs += runs
        times = {
            name: max(0.0, (self._counted_runs * mean - before * first.get(name, 0.0)) / runs)
            for name, mean in _counters(request).items()
        }
        return [
            KernelTime(
                name=node.get_friendly_name(),
                op=_text(node, "layerType"),
                time_us=times.get(node.get_friendly_name(), 0.0),
                provider=f"CPU {_text(node, 'primitiveType')}",
                precision=_precision(node),
            )
            for node in _executed(self._counting_model())
        ]

    def _counting_model(self) -> Any:
        """The model compiled with counters; names that OpenVINO makes up differ from one compilation to the next."""
        if self._counting is None:
            self._counting = self._compile(PERF_COUNT="YES")
        return self._counting

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        """The compiled model's runtime graph; see `Session.executed_graph`."""
        return tuple(
            ExecutedNode(
                name=node.get_friendly_name(),
                op=_text(node, "layerType"),
                inputs=tuple(source.get_node().get_friendly_name() for source in node.input_values()),
                outputs=(node.get_friendly_name(),),
                originals=tuple(filter(None, _text(node, "originalLayersNames").split(","))),
            )
            for node in _executed(self._counting_model())
        )


def _executed(compiled: Any) -> list[Any]:
    nodes = compiled.get_runtime_model().get_ordered_ops()
    return [node for node in nodes if _text(node, "layerType") not in _NOT_EXECUTED]


def _precision(node: Any) -> str:
    """`runtimePrecision`, which is that of the first operand, unless another operand is real-valued data."""
    stated = _PRECISION_OF.get(_text(node, "runtimePrecision"), "other")
    if stated != "int8" or _text(node, "layerType") in _WEIGHTED_LAYERS:
        return stated
    data = [value for value in node.input_values() if _text(value.get_node(), "layerType") != "Const"]
    kinds = [_PRECISION_OF.get(value.get_element_type().to_string(), "other") for value in data]
    return next((kind for kind in kinds if kind.startswith(("float", "bfloat"))), stated)


def _text(node: Any, key: str) -> str:
    info = node.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""


def _counters(request: Any) -> dict[str, float]:
    """Mean µs of each node since the model was compiled."""
    return {each.node_name: each.real_time.total_seconds() * 1e6 for each in request.get_profiling_info()}


def _tensor_spec(port: Any) -> TensorSpec:
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.get_partial_shape())
    dtype = port.get_element_type()
    return TensorSpec(name=port.get_any_name(), dtype=dtype.to_dtype().name, shape=shape)


class OpenVINOBackend(PackagedBackend):
    """OpenVINO's CPU plugin."""

    name = "openvino"
    reads = ("onnx", "openvino", "tflite")

    def _open(self, artifact: Path | bytes, *, threads: int) -> Session:
        return OpenVINOSession(artifact, threads=threads)


BACKEND = OpenVINOBackend()
