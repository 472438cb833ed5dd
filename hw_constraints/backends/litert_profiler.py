"""LiteRT's profiler, through the C API that its wheel ships (`libLiteRt.so`).

The Python interpreter has none: `benchmark_model` and the C API's compiled model do. A compiled model applies the same
XNNPACK delegate with the same threads; its profiler names each operator that the delegate runs, and each node that
stays outside. Declarations: litert/c/*.h of https://github.com/google-ai-edge/LiteRT (all functions return a status).
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.backends.base import Arrays
from bitwright.hw_constraints.backends.native_messages import native_messages
from bitwright.quant.errors import InputError

_CPU = 1  # kLiteRtHwAcceleratorCpu: litert_common.h
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
_OPERATOR, _DELEGATED = 1 << 1, 1 << 3  # OPERATOR_INVOKE_EVENT, DELEGATE_PROFILED_OPERATOR_INVOKE_EVENT
_KEEP = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda payload: None)  # called to free a payload: Python owns it
_UNTOUCHED = 0xA5
_LARGEST_EVENT = 256  # bytes; more than any version's


class _Layout(ctypes.Structure):  # LiteRtLayout: rank in the low 7 bits of the first word, litert_layout.h
    _fields_ = (("rank", ctypes.c_uint32), ("dimensions", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8))


class _TensorType(ctypes.Structure):  # LiteRtRankedTensorType: "ABI stable", litert_model_types.h
    _fields_ = (("element_type", ctypes.c_int), ("layout", _Layout))


class _EventData(ctypes.Structure):  # ProfiledEventData: litert_profiler_event.h
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("event_type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),  # two tflite::profiling::memory::MemoryUsage
        ("metadata1", ctypes.c_uint64),
        ("metadata2", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


@dataclass(frozen=True, kw_only=True)
class Event:
    """An operator that ran.

    Attributes:
        op: XNNPACK's name of it, or the node's operator type.
        time_us: how long, in whole microseconds.
        is_delegated: whether XNNPACK ran it.
        position: within its delegated part of the graph; else the node's in the file.
    """

    op: str
    time_us: float
    is_delegated: bool
    position: int


def profiled_runs(artifact: str | bytes, inputs: Arrays, threads: int, runs: int) -> list[list[Event]]:
    """For each of `runs` runs behind a warm-up the operators in the order in which they ran.

    Args:
        artifact: the file's path or content.
        inputs: by the names of the tensors that take them.
        threads: of XNNPACK.
        runs: how many.

    Raises:
        InputError: LiteRT does not accept the file, or its profiler is another one than this code knows.
    """
    try:
        with native_messages() as messages, ExitStack() as stack:
            model = _CompiledModel(stack, artifact, inputs, threads)
            model.run()
            return [model.profiled_run() for _ in range(runs)]
    except _StatusError as error:
        raise InputError(f"litert: {error}: {messages.last or 'no message'}") from error


class _StatusError(Exception):
    """A function of the C API failed; why stands on standard error."""


class _CompiledModel:
    def __init__(self, stack: ExitStack, artifact: str | bytes, inputs: Arrays, threads: int) -> None:
        self._stack = stack
        self._kept: list[Any] = []  # buffers that the library reads and does not own
        self._environment = self._made("Environment", 0, None)
        self._model = self._made_model(artifact)
        options = self._made_options(
            {"runtime_options_string": "enable_profiling = true\n", "xnnpack": f"num_threads = {threads}\n"}
        )
        self._compiled = self._made("CompiledModel", self._environment, self._model, options)
        self._signature = self._handle("LiteRtGetModelSignature", self._model, _index(0))
        arrays = [inputs[name] for name in self._names("Input")]
        for position, array in enumerate(arrays):
            self._resize(position, array.shape)
        self._inputs = self._buffers("Input")
        self._outputs = self._buffers("Output")
        for buffer, array in zip(self._inputs, arrays, strict=True):
            self._write(buffer, array)
        self._profiler = self._handle("LiteRtCompiledModelGetProfiler", self._compiled)

    def run(self) -> None:
        """Runs once."""
        arguments = [
            part for buffers in (self._inputs, self._outputs) for part in (_index(len(buffers)), _array_of(buffers))
        ]
        _call("LiteRtRunCompiledModel", self._compiled, _index(0), *arguments)

    def profiled_run(self) -> list[Event]:
        """Runs once; the operators in order."""
        _call("LiteRtResetProfiler", self._profiler)
        _call("LiteRtStartProfiler", self._profiler)
        self.run()
        _call("LiteRtStopProfiler", self._profiler)
        return read_events(lambda count: _events(self._profiler, count), self._count_events())

    def _count_events(self) -> int:
        count = ctypes.c_int()
        _call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        return count.value

    def _made(self, kind: str, *arguments: Any, function: str = "") -> ctypes.c_void_p:
        """Creates an object that is destroyed with the model."""
        handle = self._handle(function or f"LiteRtCreate{kind}", *arguments)
        self._stack.callback(getattr(_library(), f"LiteRtDestroy{kind}"), handle)
        return handle

    def _made_model(self, artifact: str | bytes) -> ctypes.c_void_p:
        if isinstance(artifact, str):
            path = artifact.encode()
            return self._made("Model", self._environment, path, function="LiteRtCreateModelFromFile")
        content = ctypes.create_string_buffer(artifact, len(artifact))
        self._kept.append(content)
        arguments = (self._environment, content, _index(len(artifact)))
        return self._made("Model", *arguments, function="LiteRtCreateModelFromBuffer")

    def _made_options(self, texts: dict[str, str]) -> ctypes.c_void_p:
        """Options as TOML: the functions that would write it are not among those that the library exports."""
        options = self._made("Options")
        _call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        for identifier, text in texts.items():
            payload = ctypes.create_string_buffer(text.encode())
            self._kept.append(payload)
            address = ctypes.cast(payload, ctypes.c_void_p)
            opaque = self._handle("LiteRtCreateOpaqueOptions", identifier.encode(), address, _KEEP)
            _call("LiteRtAddOpaqueOptions", options, opaque)
        return options

    def _resize(self, position: int, shape: tuple[int, ...]) -> None:
        dimensions = (ctypes.c_int * len(shape))(*shape)
        arguments = (self._compiled, _index(0), _index(position), dimensions, _index(len(shape)))
        _call("LiteRtCompiledModelResizeInputTensor", *arguments)

    def _tensors(self, side: str) -> list[ctypes.c_void_p]:
        count = ctypes.c_size_t()
        _call(f"LiteRtGetNumSignature{side}s", self._signature, ctypes.byref(count))
        function = f"LiteRtGetSignature{side}TensorByIndex"
        return [self._handle(function, self._signature, _index(position)) for position in range(count.value)]

    def _names(self, side: str) -> list[str]:
        names = []
        for tensor in self._tensors(side):
            name = ctypes.c_char_p()
            _call("LiteRtGetTensorName", tensor, ctypes.byref(name))
            names.append((name.value or b"").decode())
        return names

    def _buffers(self, side: str) -> list[ctypes.c_void_p]:
        return [self._buffer(side, position, tensor) for position, tensor in enumerate(self._tensors(side))]

    def _buffer(self, side: str, position: int, tensor: ctypes.c_void_p) -> ctypes.c_void_p:
        tensor_type = _TensorType()
        _call("LiteRtGetRankedTensorType", tensor, ctypes.byref(tensor_type))
        needs = self._handle(
            f"LiteRtGetCompiledModel{side}BufferRequirements", self._compiled, _index(0), _index(position)
        )
        create = "LiteRtCreateManagedTensorBufferFromRequirements"
        return self._made("TensorBuffer", self._environment, ctypes.byref(tensor_type), needs, function=create)

    def _write(self, buffer: ctypes.c_void_p, array: npt.NDArray[Any]) -> None:
        size = ctypes.c_size_t()
        _call("LiteRtGetTensorBufferSize", buffer, ctypes.byref(size))
        if array.nbytes > size.value:
            raise InputError(f"an input has {array.nbytes} bytes; LiteRT's compiled model takes {size.value}")
        address = ctypes.c_void_p()
        _call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        _call("LiteRtUnlockTensorBuffer", buffer)

    @staticmethod
    def _handle(function: str, *arguments: Any) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        _call(function, *arguments, ctypes.byref(handle))
        return handle


def read_events(fill: Callable[[int], bytes], count: int) -> list[Event]:
    """The operators among the profiler's events.

    Args:
        fill: returns the memory, longer than `count` events, that the profiler wrote them to.
        count: of events.

    Raises:
        InputError: they take other room than the structure that this code knows, whose layout is not promised.
    """
    if not count:
        return []
    memory = fill(count)
    written = len(memory.rstrip(bytes([_UNTOUCHED])))
    size = ctypes.sizeof(_EventData)
    if not (count - 1) * size + _EventData.source.offset < written <= count * size:
        raise InputError(
            f"litert: its profiler wrote {written} bytes for {count} events, not {size} each as in 2.3.0: "
            "times of single operators cannot be read from this version"
        )
    events = (_EventData * count).from_buffer_copy(memory[: count * size])
    return [
        Event(
            op=event.tag.decode(),
            time_us=float(event.elapsed_us),
            is_delegated=event.event_type == _DELEGATED,
            position=event.metadata1,
        )
        for event in events
        if event.event_type in (_OPERATOR, _DELEGATED)
    ]


def _events(profiler: ctypes.c_void_p, count: int) -> bytes:
    memory = (ctypes.c_ubyte * ((count + 1) * _LARGEST_EVENT))(*[_UNTOUCHED] * ((count + 1) * _LARGEST_EVENT))
    _call("LiteRtGetProfilerEvents", profiler, count, memory)
    return bytes(memory)


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("ai_edge_litert")
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("libLiteRt.*")]
    if not files:
        raise InputError("litert: this ai-edge-litert has no libLiteRt, which alone times single operators: 2.x has it")
    return ctypes.CDLL(str(files[0]))


def _call(function: str, *arguments: Any) -> None:
    status = getattr(_library(), function)(*arguments)
    if status:
        raise _StatusError(f"{function} failed with status {status}")  # LiteRtStatus: litert_common.h


def _index(value: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(value)


def _array_of(handles: Sequence[ctypes.c_void_p]) -> Any:
    return (ctypes.c_void_p * len(handles))(*handles)
