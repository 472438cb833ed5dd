"""A kernel as a model: ONNX in which the runtime runs exactly this kernel, in the surroundings it has in a network.

Method. Two models that differ in nothing but the kernel, each of several equal branches:

    without:  x ─ producer ─ t ─ glance        with:  x ─ producer ─ t ─ KERNEL ─ glance

The producer (a cheap 1 x 1 convolution of few channels) writes t freshly and in the memory layout that the runtime
prefers, so the kernel pays no conversion that it would not pay in a network; the glance (a max pool of 1 x 1 that
strides over the whole picture) keeps the result alive and costs next to nothing. The kernel's time is

    (T(with) - T(without)) / branches

with both timed in the same rounds. Each branch has weights of its own, as many as it takes for them not to stay in the
innermost caches: in a network of many layers a weight has long been displaced when it is needed again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.kernels.kernel import CONVOLUTIONS, Family, Kernel, Shape
from bitwright.hw_constraints.kernels.onnx_parts import ACTIVATION_SCALE, ACTIVATION_ZERO, Parts

_PRODUCER_CHANNELS = 3
_COLD_BYTES = 3 * 2**20  # weights of all branches together: beyond a second-level cache of 2 MiB
_BRANCHES = (2, 8)  # fewest and most
_BRANCH_WORK = 5e7  # multiply-accumulates after which there are branches enough
_PICTURE = 4
_GLANCE_CHANNELS = 16


@dataclass(frozen=True, kw_only=True)
class MinimalModel:
    """Two models whose difference is a kernel.

    Attributes:
        kernel: what is measured.
        with_kernel: ONNX bytes.
        without_kernel: ONNX bytes, the same inputs.
        branches: how often the kernel is in the former.
    """

    kernel: Kernel
    with_kernel: bytes
    without_kernel: bytes
    branches: int

    def time_us(self, with_us: float, without_us: float) -> float:
        """The kernel's time from those of the two models."""
        return (with_us - without_us) / self.branches


def minimal_model(kernel: Kernel, runtime: str, *, branches: int | None = None, seed: int = 0) -> MinimalModel:
    """Builds both models.

    Args:
        kernel: what is to run.
        runtime: the backend's name.
        branches: how often; None takes what makes weights come from where they come from in a network.
        seed: of weights.
    """
    count = branches or _branches(kernel)
    return MinimalModel(
        kernel=kernel,
        with_kernel=_Build(kernel, runtime, seed).model(count, with_kernel=True),
        without_kernel=_Build(kernel, runtime, seed).model(count, with_kernel=False),
        branches=count,
    )


def _branches(kernel: Kernel) -> int:
    low, high = _BRANCHES
    for_cache = math.ceil(_COLD_BYTES / kernel.weight_bytes) if kernel.weight_bytes else low
    for_work = math.ceil(_BRANCH_WORK / max(kernel.macs, kernel.bytes, 1))
    return min(high, max(low, min(for_cache, for_work)))


class _Build:
    def __init__(self, kernel: Kernel, runtime: str, seed: int) -> None:
        self._kernel, self._runtime = kernel, runtime
        self._parts = Parts(seed)
        self._sources: dict[Shape, str] = {}
        self._zero = ACTIVATION_ZERO if kernel.attribute("zero_point") else 0
        self._reads_codes = kernel.format == "int8" and kernel.family is not Family.QUANTIZE
        self._writes_codes = (
            kernel.format == "int8" and "dequantize" not in kernel.epilogue and kernel.family is not Family.DEQUANTIZE
        ) or "quantize" in kernel.epilogue

    def model(self, branches: int, *, with_kernel: bool) -> bytes:
        """One of the two models."""
        for branch in range(branches):
            if self._kernel.family is Family.REORDER:
                self._reorder(branch, with_kernel=with_kernel)
                continue
            values = [self._produce(shape) for shape in self._kernel.inputs]
            if not with_kernel:
                for value, shape in zip(values, self._kernel.inputs, strict=True):
                    self._glance(value, shape, coded=self._reads_codes)
                continue
            for value, shape in zip(self._emit(values), self._kernel.outputs, strict=True):
                self._glance(value, shape, coded=self._writes_codes)
            # As many glances as without the kernel. The addend of a fused addition gets none of its own: the sum is
            # written over it, which a second reader would prevent.
            for number in range(1, len(self._kernel.inputs)):
                at = 0 if self._fused_addends else number
                self._glance(values[at], self._kernel.inputs[at], coded=self._reads_codes)
        return self._parts.model()

    @property
    def _fused_addends(self) -> int:
        return sum(_binary(op) is not None for op in self._kernel.epilogue)

    def _reorder(self, branch: int, *, with_kernel: bool) -> None:
        """A conversion between layouts: forced by a reader that insists on the other layout, or avoided."""
        parts, kernel = self._parts, self._kernel
        shape = kernel.inputs[0]
        if kernel.layout == "plain":  # the reader of a plain tensor is a slice, of any other one a pool
            value = self._produce(shape)
            if with_kernel:
                self._slice(value, len(shape))
            else:
                self._glance(value, shape, coded=self._reads_codes)
            return
        value = parts.input(shape)
        value = self._coded(value) if self._reads_codes else value
        strides = list(shape[2:])
        if not with_kernel:
            value = self._slice_of(value, [1, shape[1], 1, 1])
            strides = [1, 1]
        weight = parts.weight((_GLANCE_CHANNELS, shape[1], 1, 1), coded=self._reads_codes)
        seen = parts.node("Conv", [value, weight], kernel_shape=[1, 1], strides=strides)
        parts.result(self._coded(seen) if self._reads_codes else seen)

    # Surroundings.

    def _produce(self, shape: Shape) -> str:
        """A fresh tensor of this shape, through codes where the kernel reads codes."""
        if len(shape) != _PICTURE or shape[1] <= _PRODUCER_CHANNELS:
            value = self._source(shape, shared=len(self._kernel.inputs) == 1 and bool(self._kernel.weight))
            return self._coded(value) if self._reads_codes else value
        source = self._source((shape[0], _PRODUCER_CHANNELS, *shape[2:]), shared=True)
        if self._reads_codes:
            source = self._coded(source)
        weight = self._parts.weight((shape[1], _PRODUCER_CHANNELS, 1, 1), coded=self._reads_codes)
        value = self._parts.node("Conv", [source, weight], kernel_shape=[1, 1])
        value = self._coded(value) if self._reads_codes else value
        if self._kernel.family in (Family.ELEMENTWISE, Family.ACTIVATION):
            # A convolution would swallow it; a pool does not.
            value = self._parts.node("MaxPool", [value], kernel_shape=[1, 1], strides=[1, 1])
            value = self._coded(value) if self._reads_codes else value
        return value

    def _source(self, shape: Shape, *, shared: bool) -> str:
        if shared and shape in self._sources:
            return self._sources[shape]
        name = self._parts.input(shape)
        return self._sources.setdefault(shape, name) if shared else name

    def _coded(self, value: str) -> str:
        return self._parts.quantized(value, zero=self._zero)

    def _glance(self, value: str, shape: Shape, *, coded: bool) -> None:
        """A result that depends on the tensor and reads next to nothing of it."""
        parts = self._parts
        if len(shape) == _PICTURE:
            small = parts.node("MaxPool", [value], kernel_shape=[1, 1], strides=[max(1, side) for side in shape[2:]])
            parts.result(self._coded(small) if coded else small)
            return
        self._slice(value, len(shape))

    def _slice(self, value: str, rank: int) -> None:
        self._parts.result(self._slice_of(value, [1] * rank))

    def _slice_of(self, value: str, sizes: list[int]) -> str:
        parts, rank = self._parts, len(sizes)
        starts, axes = parts.constant(np.zeros(rank, np.int64)), parts.constant(np.arange(rank, dtype=np.int64))
        return parts.node("Slice", [value, starts, parts.constant(np.asarray(sizes, np.int64)), axes])

    # The kernel itself.

    def _emit(self, values: list[str]) -> list[str]:
        kernel, parts = self._kernel, self._parts
        main, extra = self._main_inputs(values)
        attributes = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in kernel.attributes
            if not name.startswith("const:") and name not in _OF_CODES
        }
        if kernel.family is Family.QUANTIZE:
            return [self._coded(values[0])]
        if kernel.family is Family.DEQUANTIZE:
            return [values[0]]
        results = parts.nodes_of(kernel.op, main, len(kernel.outputs), **attributes)
        for op in kernel.epilogue:
            results[0] = self._epilogue(op, results[0], extra)
        scale = ACTIVATION_SCALE * (2 if kernel.attribute("rescale") else 1)
        return (
            [parts.quantized(one, scale=scale, zero=self._zero) for one in results] if self._writes_codes else results
        )

    def _main_inputs(self, values: list[str]) -> tuple[list[str], list[str]]:
        """The operands of the main operator, and those left for what is fused behind it."""
        kernel, coded = self._kernel, self._kernel.format == "int8"
        taken = len(values) - self._fused_addends
        main, extra = values[:taken], values[taken:]
        if kernel.family in CONVOLUTIONS:
            main += [self._parts.weight(kernel.weight, coded=coded), self._parts.bias(kernel.weight[0], coded=coded)]
        elif kernel.family is Family.LINEAR:
            main += [self._parts.weight(kernel.weight, coded=coded, axis=1)]
            if kernel.op == "Gemm":
                main += [self._parts.bias(kernel.weight[1], coded=coded)]
        elif kernel.weight:
            main += [self._parts.weight(kernel.weight, coded=False)]
            if kernel.family is Family.ELEMENTWISE and coded:
                main[-1] = self._coded(main[-1])
        constants = {name: value for name, value in kernel.attributes if name.startswith("const:")}
        for name in sorted(constants, key=lambda name: int(name.split(":")[1])):
            position = int(name.split(":")[1])
            main += [""] * (position - len(main))
            main.insert(position, self._parts.constant(_as_array(constants[name])))
        return main, extra

    def _epilogue(self, op: str, value: str, extra: list[str]) -> str:
        parts = self._parts
        if op in ("quantize", "dequantize"):
            return value
        binary = _binary(op)
        if binary is not None:
            value = self._coded(value) if op.startswith(_REQUANTIZE) else value
            return parts.node(binary, [value, extra.pop(0)])
        if op == "clip":
            bounds = [parts.constant(np.float32(bound)) for bound in (0, 6)]
            return parts.node("Clip", [value, *bounds])
        if op == "silu":
            return parts.node("Mul", [value, parts.node("Sigmoid", [value])])
        return parts.node(_UNARY[op], [value])


_OF_CODES = frozenset({"zero_point", "rescale"})
_REQUANTIZE = "requantize+"
_BINARY = {"add": "Add", "mul": "Mul", "sub": "Sub"}
_UNARY = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "HardSwish",
    "hardsigmoid": "HardSigmoid",
    "leakyrelu": "LeakyRelu",
    "elu": "Elu",
    "gelu": "Gelu",
}


def _binary(op: str) -> str | None:
    return _BINARY.get(op.removeprefix(_REQUANTIZE))


def _as_array(value: object) -> npt.NDArray[Any]:
    array = np.asarray(value)
    return array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
