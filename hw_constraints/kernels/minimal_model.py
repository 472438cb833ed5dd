"""A kernel as a model: ONNX in which the runtime runs exactly this kernel, in the surroundings it has in a network.

Method. Two models that differ in nothing but the kernel, each of several equal branches:

    without:  x - producer - t - glance        with:  x - producer - t - KERNEL - glance

The producer (a cheap 1 x 1 convolution of few channels) writes t freshly and in the memory layout that the runtime
prefers, so the kernel pays no conversion that it would not pay in a network; the glance (a max pool of 1 x 1 that
strides over the whole picture) keeps a result alive and costs next to nothing; both models have as many of them. The
kernel's time is

    (T(with) - T(without)) / branches

with both timed in the same rounds, each after an untimed call. Each branch has weights of its own, enough of them not
to stay in the second-level cache: in a network of many layers a weight has long left it when it is needed again. What
comes from memory beyond the last cache, in networks that do not fit there, is no part of the figure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from bitwright.hw_constraints.kernels.emit import emit
from bitwright.hw_constraints.kernels.kernel import Family, Kernel
from bitwright.hw_constraints.kernels.onnx_parts import Parts
from bitwright.hw_constraints.kernels.rules import CHANNELS_LAST, PLAIN
from bitwright.hw_constraints.kernels.surroundings import Surroundings

_COLD_BYTES = 3 * 2**20  # weights of all branches together: beyond a second-level cache of 2 MiB
_BRANCHES = (2, 8)  # fewest and most
_LAST = (0, 2, 3, 1)  # axes of a picture with its channels last
_ANY_ORDER = frozenset({Family.ACTIVATION, Family.CONCAT, Family.RESIZE})
_BRANCH_WORK = 5e7  # multiply-accumulates after which there are branches enough


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
    written = _in_plain_order(kernel) if runtime == "onnxruntime" else kernel
    return MinimalModel(
        kernel=kernel,
        with_kernel=_model(written, runtime, count, seed, with_kernel=True),
        without_kernel=_model(written, runtime, count, seed, with_kernel=False),
        branches=count,
    )


def _in_plain_order(kernel: Kernel) -> Kernel:
    """ONNX Runtime's kernels of real values know no order of channels: it turns shapes and axes round, as here.

    Written behind a real-valued convolution they would find blocks, which they are not for.
    """
    four = all(len(shape) == 4 for shape in (*kernel.inputs, *kernel.outputs))
    if kernel.layout != CHANNELS_LAST or kernel.format != "float32" or kernel.family not in _ANY_ORDER or not four:
        return kernel
    attributes: dict[str, Any] = dict(kernel.attributes)
    if "axis" in attributes:
        attributes["axis"] = _LAST.index(attributes["axis"] % len(_LAST))
    for name in ("const:2", "const:3"):  # scales and sizes
        if kernel.family is Family.RESIZE and name in attributes:
            attributes[name] = tuple(attributes[name][axis] for axis in _LAST)
    return replace(
        kernel,
        inputs=tuple(tuple(shape[axis] for axis in _LAST) for shape in kernel.inputs),
        outputs=tuple(tuple(shape[axis] for axis in _LAST) for shape in kernel.outputs),
        attributes=tuple(sorted(attributes.items())),
        layout=PLAIN,
    )


def _branches(kernel: Kernel) -> int:
    low, high = _BRANCHES
    for_cache = math.ceil(_COLD_BYTES / kernel.weight_bytes) if kernel.weight_bytes else high
    for_work = math.ceil(_BRANCH_WORK / max(kernel.macs, kernel.bytes, 1))
    return min(high, max(low, min(for_cache, for_work)))


def _model(kernel: Kernel, runtime: str, branches: int, seed: int, *, with_kernel: bool) -> bytes:
    parts = Parts(seed)
    around = Surroundings(kernel, runtime, parts)
    for _ in range(branches):
        if kernel.family is Family.REORDER:
            around.reorder(forced=with_kernel)
        elif kernel.family is Family.DEQUANTIZE:
            around.dequantize(forced=with_kernel)
        else:
            _branch(kernel, parts, around, with_kernel=with_kernel)
    return parts.model()


def _branch(kernel: Kernel, parts: Parts, around: Surroundings, *, with_kernel: bool) -> None:
    values = [around.produce(at) for at in range(len(kernel.inputs))]
    glances = max(len(kernel.inputs), len(kernel.outputs))
    watched, shapes, coded = values, kernel.inputs, around.reads_codes
    if around.producer_is_watched:
        around.glance(values[0], kernel.inputs[0], coded=coded)
    if with_kernel:
        watched, shapes, coded = emit(kernel, parts, values, around), kernel.outputs, around.writes_codes
    for number in range(glances):
        at = number % len(watched)
        around.glance(watched[at], shapes[at], coded=coded, variant=1 + number // len(watched))
