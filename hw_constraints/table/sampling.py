"""Which kernels to measure next: first some of each kind, then those on which whole networks are least sure.

The networks are drawn from a seed and what is in the table already is left out, so that a table which was interrupted
goes on where it stopped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.kernels.axes import moves_one_axis, turns
from bitwright.hw_constraints.kernels.kernel import CONVOLUTIONS, Family, Kernel
from bitwright.hw_constraints.kernels.rules import PLAIN
from bitwright.hw_constraints.table.row import KernelRow
from bitwright.hw_constraints.table.store import KernelTable

Floats = npt.NDArray[np.float64]
# Logarithms of the latencies of kernels, in units of the reference kernel's, and their standard deviations.
Belief = Callable[[Sequence[Kernel]], tuple[Floats, Floats]]
Fit = Callable[[Sequence[KernelRow]], Belief]
_FEW_POSITIONS = 64  # results of a channel, below which weights are most of what is read
_FEW_CHANNELS = 2  # fewer than the colours of a first layer
_LARGE_SIDE, _LARGEST_USUAL = 3, 4  # of kernels in groups; of transposed ones, most of which are 2 x 2 to 4 x 4
_LANES = 16  # of float32 in a vector of 512 bits
_CHOICE = 3  # candidates for each place in a batch, among which those that differ most are taken


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the kernels of a table are chosen.

    Attributes:
        start: kernels of each group (`group_of`) to begin with, spread evenly.
        batch: kernels at a time.
        refit: batches between two fits of the predictor.
    """

    start: int = 8
    batch: int = 12
    refit: int = 4


def batches(
    table: KernelTable, networks: Sequence[Sequence[Kernel]], fit: Fit, plan: Plan
) -> Iterator[Sequence[Kernel]]:
    """Batches of kernels that the table lacks; each is chosen when it is asked for.

    Args:
        table: what is known so far; grows between two batches.
        networks: the kernels of each; the candidates are all of them.
        fit: makes a belief of the rows so far.
        plan: how to choose.
    """
    left = {kernel.key: kernel for network in networks for kernel in network if kernel.key not in table}
    queue = _start(table, list(left.values()), plan.start)
    while left:
        if not queue:
            doubts = doubt_by_kernel(networks, fit(table.measured))
            queue = _most_doubtful(list(left.values()), doubts, plan.batch * plan.refit)
        batch, queue = queue[: plan.batch], queue[plan.batch :]
        for kernel in batch:
            del left[kernel.key]
        yield batch


def doubt_by_kernel(networks: Sequence[Sequence[Kernel]], belief: Belief) -> dict[str, float]:
    """What not knowing a kernel adds to the relative error of a network's latency, summed over the networks.

    A network takes the sum of its kernels' times t; an error of s in log t of one of them is one of s t / sum(t).
    """
    kernels = {kernel.key: kernel for network in networks for kernel in network}
    logs, deviations = belief(list(kernels.values()))
    times = dict(zip(kernels, np.exp(logs), strict=True))
    shares: Counter[str] = Counter()
    for network in networks:
        whole = sum(times[kernel.key] for kernel in network)
        for kernel in network:
            shares[kernel.key] += times[kernel.key] / whole
    return {key: float(shares[key] * deviation) for key, deviation in zip(kernels, deviations, strict=True)}


def group_of(kernel: Kernel) -> tuple[str, str, str]:
    """Kernels that are counted together: of one family and format, and alike in what a model knows only by seeing it.

    For convolutions that is what takes a runtime off its usual path: dilation, a long or large kernel, few positions,
    few channels or such as fill no vector. For others it is the operator, and which axes it works on.
    """
    return str(kernel.family), kernel.format, _trait(kernel)


def _trait(kernel: Kernel) -> str:
    if kernel.family not in CONVOLUTIONS:
        return f"{kernel.op}{_axes(kernel)}"
    dilations = kernel.attribute("dilations", (1,))
    if max(dilations if isinstance(dilations, tuple) else (dilations,), default=1) > 1:
        return "dilated"
    if len(set(kernel.weight[2:])) > 1:
        return "long"
    if min(kernel.inputs[0][1], kernel.outputs[0][1]) <= _FEW_CHANNELS and kernel.family is not Family.DEPTHWISE:
        return "of few channels"
    if max(kernel.weight[2:], default=1) > _LARGE_SIDE and kernel.family is Family.GROUPED:
        return "large"
    if math.prod(kernel.outputs[0][2:]) <= _FEW_POSITIONS:
        return "of few positions"
    odd = any(channels % _LANES for channels in (kernel.inputs[0][1], kernel.outputs[0][1]))
    return "ragged" if odd else "ordinary"


def _axes(kernel: Kernel) -> str:
    """What an operator without a convolution's weights does to axes, where that is not the usual."""
    shape = kernel.inputs[0]
    if kernel.family is Family.ELEMENTWISE and len(set(kernel.inputs)) > 1:
        return " broadcasting" if turns(kernel) <= 1 else " broadcasting between"
    if kernel.family is Family.SOFTMAX and int(kernel.attribute("axis", -1)) % len(shape) != len(shape) - 1:
        return " inside"
    if kernel.op == "Transpose" and not moves_one_axis(kernel):
        return " of several axes"
    sides = kernel.weight[2:]
    if kernel.family is Family.CONV_TRANSPOSE and (len(set(sides)) > 1 or max(sides, default=1) > _LARGEST_USUAL):
        return " large"
    return " in plain order" if kernel.op == "MaxPool" and kernel.layout == PLAIN else ""


def _start(table: KernelTable, candidates: Sequence[Kernel], count: int) -> list[Kernel]:
    """The kernels to begin with: all groups in turn, so that a table that ends early knows something of each."""
    have = Counter(group_of(row.kernel) for row in table.rows)
    groups: dict[tuple[str, str, str], list[Kernel]] = {}
    for kernel in candidates:
        groups.setdefault(group_of(kernel), []).append(kernel)
    chosen = [spread(members, max(0, count - have[group])) for group, members in groups.items()]
    longest = max(map(len, chosen), default=0)
    return [members[turn] for turn in range(longest) for members in chosen if turn < len(members)]


def spread(kernels: Sequence[Kernel], count: int) -> list[Kernel]:
    """A subset that covers the space of shapes: each next one is the farthest from those before.

    Gonzalez, "Clustering to minimize the maximum intercluster distance" (1985): within a factor of 2 of the subset that
    leaves the fewest far away. Distances are of logarithms of sizes.
    """
    if count <= 0 or not kernels:
        return []
    points = np.stack([shape_vector(kernel) for kernel in kernels])
    points = points / np.maximum(points.std(axis=0), 1e-9)
    chosen = [int(np.argmin(np.linalg.norm(points - np.median(points, axis=0), axis=1)))]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(count, len(kernels)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return [kernels[number] for number in chosen]


def shape_vector(kernel: Kernel) -> npt.NDArray[np.float64]:
    """Logarithms of what a kernel's time hangs on, for distances: work, bytes, channels, extent, and its kind."""
    read, written = kernel.inputs[0], kernel.outputs[0]
    sizes = (
        kernel.macs,
        kernel.input_bytes,
        kernel.output_bytes,
        kernel.weight_bytes,
        read[1] if len(read) > 1 else 1,
        written[1] if len(written) > 1 else 1,
        read[-1],
        int(np.prod(kernel.weight[2:], dtype=np.int64)),
        len(kernel.epilogue),
        len(kernel.inputs),
    )
    return np.log1p(np.asarray(sizes, np.float64))


def _most_doubtful(candidates: Sequence[Kernel], doubts: dict[str, float], count: int) -> list[Kernel]:
    """Of the most doubtful candidates those that differ most, so that they do not all teach the same."""
    worst = sorted(candidates, key=lambda kernel: -doubts[kernel.key])[: _CHOICE * count]
    return spread(worst, count)
