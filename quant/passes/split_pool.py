"""Splits a large pool into a cascade of small ones.

The maximum over a window of `k` with stride 1 is the maximum over windows of `a` of maxima over windows of
`k - a + 1`. Pools with `stride = kernel = a b` are pools by `a` and then by `b`, whether they take maxima or averages.
An adaptive average over windows of one size is such a pool; behind small ones it may take the average of what is left.
"""

from __future__ import annotations

from typing import Any

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call, pair, shape_of

Step = tuple[list[int], list[int], list[int]]  # kernel, stride, padding


def split_pool(captured: CapturedModel, at: str, *, largest: int, left: int = 0) -> CapturedModel | Refused:
    """Splits the pool at `at` into pools whose windows are at most `largest` on each side; exact.

    Args:
        captured: the network.
        at: the pool's node.
        largest: the longest side of a window.
        left: how many elements an adaptive pool still averages itself, once the others have made the image small.
    """
    edit = Editor(captured, at)
    pool = edit.at
    shape = shape_of(pool.args[0]) if pool.args else None
    if shape is None or not is_call(pool, "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"):
        return Refused(f"{operator_type(pool)} is no pool of an image of known size")
    keeps_itself = is_call(pool, "adaptive_avg_pool2d") and left > 0
    steps = _before(pool, shape, largest, left) if keeps_itself else _steps(pool, shape, largest)
    if isinstance(steps, Refused):
        return steps
    target = aten.max_pool2d.default if is_call(pool, "max_pool2d") else aten.avg_pool2d.default
    value: Any = pool.args[0]
    for kernel, stride, padding in steps:
        value = edit.call(target, value, kernel, stride, padding)
    edit.replace(pool, edit.call(pool.target, value, *pool.args[1:]) if keeps_itself else value)
    return edit.finish()


def _steps(pool: torch.fx.Node, shape: tuple[int, ...], largest: int) -> list[Step] | Refused:
    given = arguments(pool)
    if is_call(pool, "adaptive_avg_pool2d"):
        after = shape_of(pool) or ()
        if any(n % m for n, m in zip(shape[-2:], after[-2:], strict=True)):
            return Refused("its windows are not all of one size")
        kernel = [n // m for n, m in zip(shape[-2:], after[-2:], strict=True)]
        stride, padding, plain = kernel, [0, 0], True
    else:
        kernel, padding = [*pair(given["kernel_size"])], [*pair(given["padding"])]
        stride = [*pair(given["stride"])] if given["stride"] else kernel
        dense = not given["ceil_mode"] and set(pair(given.get("dilation", 1))) == {1}
        plain = dense and given.get("divisor_override") is None
    if max(kernel) <= largest:
        return Refused(f"its window of {kernel[0]} x {kernel[1]} is not larger than {largest}")
    if not plain:
        return Refused("it is dilated, rounds its size up or has a divisor of its own")
    if is_call(pool, "max_pool2d") and stride == [1, 1]:
        return _sliding(kernel, padding, largest)
    if stride == kernel and not any(padding):
        return _side_by_side(kernel, largest)
    return Refused("its windows overlap with a stride other than 1, or average over padding")


def _before(pool: torch.fx.Node, shape: tuple[int, ...], largest: int, left: int) -> list[Step] | Refused:
    """Averages of small windows side by side, until a window of the adaptive pool has at most `left` elements."""
    after = shape_of(pool) or ()
    if any(n % m for n, m in zip(shape[-2:], after[-2:], strict=True)):
        return Refused("its windows are not all of one size")
    window = [n // m for n, m in zip(shape[-2:], after[-2:], strict=True)]
    if window[0] * window[1] <= left:
        return Refused(f"its window of {window[0]} x {window[1]} has no more than {left} elements")
    steps: list[Step] = []
    while window[0] * window[1] > left:
        kernel = [_smallest_factor(size, largest) for size in window]
        if kernel == [1, 1]:
            return Refused(f"{window[0]} x {window[1]} is no product of windows up to {largest} and one of {left}")
        steps.append((kernel, kernel, [0, 0]))
        window = [size // factor for size, factor in zip(window, kernel, strict=True)]
    return steps


def _smallest_factor(size: int, largest: int) -> int:
    """The smallest factor of `size` from 2 to `largest`; 1 without one."""
    return next((factor for factor in range(2, largest + 1) if size % factor == 0), 1)


def _sliding(kernel: list[int], padding: list[int], largest: int) -> list[Step] | Refused:
    """Windows of at most `largest` whose sizes less one add up to that of the large one less one.

    Each takes as much of the padding as keeps its windows centred, which asks for padding of half the kernel or none.
    """
    if any(size > 1 and pad not in (0, (size - 1) / 2) for size, pad in zip(kernel, padding, strict=True)):
        return Refused("its padding is neither 0 nor half the window")
    if largest < 3 and any(padding):
        return Refused("windows below 3 cannot share the padding")
    step = largest if largest % 2 or not any(padding) else largest - 1
    count = max(-(-(size - 1) // (step - 1)) for size in kernel)
    sizes = [[max(1, min(step, size - i * (step - 1))) for size in kernel] for i in range(count)]
    return [
        (each, [1, 1], [(size - 1) // 2 if pad else 0 for size, pad in zip(each, padding, strict=True)])
        for each in sizes
    ]


def _side_by_side(kernel: list[int], largest: int) -> list[Step] | Refused:
    factors = [_factors(size, largest) for size in kernel]
    if any(each is None for each in factors):
        return Refused(f"{kernel[0]} x {kernel[1]} is no product of windows up to {largest}")
    known = [each or [] for each in factors]
    count = max(map(len, known))
    padded = [[*each, *[1] * (count - len(each))] for each in known]
    return [([h, w], [h, w], [0, 0]) for h, w in zip(*padded, strict=True)]


def _factors(size: int, largest: int) -> list[int] | None:
    """The fewest large factors of `size`, each at most `largest`."""
    found: list[int] = []
    while size > 1:
        factor = next((f for f in range(min(size, largest), 1, -1) if size % f == 0), None)
        if factor is None:
            return None
        found.append(factor)
        size //= factor
    return found
