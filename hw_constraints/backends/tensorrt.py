"""TensorRT on an NVIDIA device: builds an engine from an ONNX file, or loads one (`.plan`, `.engine`).

The network is strongly typed: formats are those of the file, int8 and fp8 where its QuantizeLinear and
DequantizeLinear say so, and TF32 is off, so that a float reference is one. Tactics that were timed once are kept in a
timing cache, for two builds of one file to be the same engine. Times of layers come from TensorRT's `IProfiler`, what
is executed from its engine inspector. `run` includes the copies to and from the device, `profile` does not.

Written by the documentation of TensorRT 10 and 11 and not yet run on a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy.typing as npt

from bitwright.hw_constraints.backends.artifacts import artifact_kind
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
from bitwright.hw_constraints.backends.cuda_device import cache_folder, lacking_device
from bitwright.hw_constraints.backends.tensorrt_build import build_plan, new_logger
from bitwright.hw_constraints.backends.tensorrt_layers import (
    Layer,
    executed_node,
    layer_type,
    precision_of_layer,
    read_layers,
)
from bitwright.quant.errors import InputError

_DYNAMIC = -1


class TensorRTSession:
    """An engine with an execution context and its buffers on the device."""

    def __init__(self, artifact: Path | bytes, *, threads: int) -> None:
        import tensorrt

        self.threads = threads
        self._label = artifact_label(artifact)
        self._logger = new_logger(tensorrt)
        kind = artifact_kind(artifact)
        if kind is not None and kind.name == "plan" and not isinstance(artifact, bytes):
            plan = Path(artifact).read_bytes()
            self.settings = {"host threads": str(threads), "engine": "as it was built"}
        else:
            cache = cache_folder() / f"tensorrt-{tensorrt.__version__}.timing"
            plan = build_plan(tensorrt, self._logger, artifact, self._label, cache)
            self.settings = {
                "host threads": str(threads),
                "typing": "strong",
                "TF32": "off",
                "timing cache": str(cache),
            }
        self._engine = tensorrt.Runtime(self._logger).deserialize_cuda_engine(plan)
        if self._engine is None:
            raise InputError(f"{self._label}: tensorrt cannot load it: {self._logger.last_error}")
        self._context = _Context(tensorrt, self._engine)
        self.input_infos = tuple(map(self._spec, self._context.inputs))
        self.output_infos = tuple(map(self._spec, self._context.outputs))

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(None if size == _DYNAMIC else int(size) for size in self._engine.get_tensor_shape(name))
        return TensorSpec(name=name, dtype=torch_dtype(self._engine.get_tensor_dtype(name).name), shape=shape)

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs once; see `Session.run`."""
        return self._run(self._context, inputs)

    def _run(self, context: _Context, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        check_inputs(inputs, self.input_infos)
        try:
            return context.run(inputs)
        except (RuntimeError, TypeError) as error:
            message = self._logger.last_error or one_line(error)
            raise InputError(f"{self._label}: tensorrt cannot run it: {message}") from error

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """Layer times from a context with a profiler; see `Session.profile`."""
        import tensorrt

        profiler = new_profiler(tensorrt)
        context = _Context(tensorrt, self._engine, profiler)
        for _ in range(runs + 1):
            profiler.begin_run()
            self._run(context, inputs)
        return kernel_times(profiler.runs, self._layers())

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        """The engine's layers; see `Session.executed_graph`."""
        return tuple(map(executed_node, self._layers()))

    def _layers(self) -> list[Layer]:
        import tensorrt

        inspector = self._engine.create_engine_inspector()
        return read_layers(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))


class _Context:
    """An execution context, and device tensors bound to the engine's inputs and outputs by name."""

    def __init__(self, tensorrt: Any, engine: Any, profiler: Any = None) -> None:
        import torch

        self._engine = engine
        self._context = engine.create_execution_context()
        if profiler is not None:
            self._context.profiler = profiler
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT for name in names}
        self.inputs = tuple(name for name in names if is_input[name])
        self.outputs = tuple(name for name in names if not is_input[name])
        self._tensors: dict[str, Any] = {}

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Copies in, runs, copies out.

        Raises:
            RuntimeError: TensorRT says that it failed; why it has told its logger.
        """
        import torch

        with torch.cuda.stream(self._stream):
            for name in self.inputs:
                self._bind_input(name, torch.from_numpy(inputs[name]))
            for name in self.outputs:
                self._bind_output(name)
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError("execute_async_v3 failed")
            results = {name: self._tensors[name].cpu().numpy() for name in self.outputs}
        self._stream.synchronize()
        return results

    def _bind_input(self, name: str, value: Any) -> None:
        if name not in self._tensors or self._tensors[name].shape != value.shape:
            self._tensors[name] = value.cuda()
            if not self._context.set_input_shape(name, tuple(value.shape)):
                raise RuntimeError(f"set_input_shape failed for {name!r}")
            self._context.set_tensor_address(name, self._tensors[name].data_ptr())
        self._tensors[name].copy_(value)

    def _bind_output(self, name: str) -> None:
        import torch

        shape = tuple(self._context.get_tensor_shape(name))
        if name not in self._tensors or tuple(self._tensors[name].shape) != shape:
            kind = getattr(torch, torch_dtype(self._engine.get_tensor_dtype(name).name))
            self._tensors[name] = torch.empty(shape, dtype=kind, device="cuda")
            self._context.set_tensor_address(name, self._tensors[name].data_ptr())


def torch_dtype(name: str) -> str:
    """What torch and NumPy call a TensorRT element type.

    Raises:
        InputError: it has none that the host could read.
    """
    names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "UINT8": "uint8"}
    names |= {"INT32": "int32", "INT64": "int64", "BOOL": "bool"}
    if name not in names:
        raise InputError(
            f"tensorrt: a result is {name}, which the host cannot read; end the file in a DequantizeLinear"
        )
    return names[name]


def new_profiler(tensorrt: Any) -> Any:
    """A profiler that keeps (layer, µs) of each run; a class of a package that need not be installed."""

    class Profiler(tensorrt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProfiler.__init__(self)
            self.runs: list[list[tuple[str, float]]] = []

        def begin_run(self) -> None:
            self.runs.append([])

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.runs[-1].append((layer_name, ms * 1e3))

    return Profiler()


def kernel_times(runs: Sequence[Sequence[tuple[str, float]]], layers: Sequence[Layer]) -> list[KernelTime]:
    """Medians of (layer, µs) over the runs behind the first, with what the inspector says of each layer."""
    described = {layer["Name"]: layer for layer in layers}
    kernels = []
    for position, (name, _) in enumerate(runs[0]):
        layer = described.get(name, {"Name": name})
        kernels.append(
            KernelTime(
                name=name,
                op=layer_type(layer),
                time_us=median(run[position][1] for run in (runs[1:] or runs)),
                provider=f"CUDA {layer.get('TacticName', '')}".strip(),
                precision=precision_of_layer(layer) or "other",
            )
        )
    return kernels


class TensorRTBackend(PackagedBackend):
    """TensorRT through its Python package; torch's CUDA build holds the buffers."""

    name = "tensorrt"
    reads = ("onnx", "plan")

    def _lacking(self) -> str | None:
        return lacking_device()

    def _open(self, artifact: Path | bytes, *, threads: int) -> Session:
        return TensorRTSession(artifact, threads=threads)


BACKEND = TensorRTBackend()
