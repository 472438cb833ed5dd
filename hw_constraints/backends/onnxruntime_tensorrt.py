"""ONNX Runtime's TensorRT provider: parts of the graph that TensorRT takes, CUDA and the CPU for the rest.

What runs is read from ONNX Runtime's trace: one kernel for each part that TensorRT compiled, whose inside it does not
show (`tensorrt` does). Its package is `onnxruntime-gpu`, which takes the place of `onnxruntime`.

Written by the documentation of ONNX Runtime ("TensorRT Execution Provider") and not yet run on a device.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.backends.base import Arrays, ExecutedNode, KernelTime, PackagedBackend, Session
from bitwright.hw_constraints.backends.cuda_device import cache_folder, lacking_device
from bitwright.hw_constraints.backends.onnxruntime import OnnxRuntimeSession, model_operators
from bitwright.hw_constraints.machine import this_machine
from bitwright.quant.errors import InputError

_PROVIDER = "TensorrtExecutionProvider"
_QUANTIZE = "QuantizeLinear"


class OnnxRuntimeTensorRTSession(OnnxRuntimeSession):
    """A model in ONNX Runtime with the TensorRT provider first."""

    def __init__(self, artifact: Path | bytes, *, threads: int) -> None:
        self._provider_options = provider_options(cache_folder(), int8=_QUANTIZE in model_operators(artifact))
        self._kernels: list[KernelTime] = []
        super().__init__(artifact, threads=threads, machine=this_machine())
        if _PROVIDER not in self._session.get_providers():  # it only warns
            raise InputError(f"{self._label}: onnxruntime fell back to {', '.join(self._session.get_providers())}")
        self.settings |= self._provider_options

    def _providers(self) -> list[Any]:
        return [(_PROVIDER, self._provider_options), "CUDAExecutionProvider", "CPUExecutionProvider"]

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """Times of the compiled parts and of the nodes outside; see `Session.profile`."""
        self._kernels = super().profile(inputs, runs)
        return self._kernels

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        """The kernels of the last profile: ONNX Runtime cannot save a model with compiled parts.

        Raises:
            InputError: nothing was profiled yet.
        """
        if not self._kernels:
            raise InputError("what onnxruntime's TensorRT provider executes is known after profile(inputs)")
        return tuple(ExecutedNode(name=kernel.name, op=kernel.op) for kernel in self._kernels)


def provider_options(folder: Path, *, int8: bool) -> dict[str, str]:
    """The provider's options: caches of engines and tactics in `folder`, int8 where the file has QuantizeLinear."""
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
        "trt_int8_enable": str(int8),
    }


class OnnxRuntimeTensorRTBackend(PackagedBackend):
    """ONNX Runtime's TensorRT provider."""

    name = "onnxruntime_tensorrt"
    reads = ("onnx",)
    package = "onnxruntime-gpu"
    module = "onnxruntime"

    def _lacking(self) -> str | None:
        import onnxruntime

        if _PROVIDER not in onnxruntime.get_available_providers():
            return f"onnxruntime {onnxruntime.__version__} has no {_PROVIDER}: install onnxruntime-gpu in its place"
        if importlib.util.find_spec("tensorrt") is None:
            return "package tensorrt is not installed"
        return lacking_device()

    def _open(self, artifact: Path | bytes, *, threads: int) -> Session:
        return OnnxRuntimeTensorRTSession(artifact, threads=threads)


BACKEND = OnnxRuntimeTensorRTBackend()
