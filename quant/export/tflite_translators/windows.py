"""Padding of windows: TensorFlow Lite knows SAME and VALID; everything else is a PAD in front."""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.quant.export.tflite_builder import Step, TfliteBuilder
from bitwright.quant.export.tflite_file import schema
from bitwright.quant.export.tflite_layout import Grid

Pads = Sequence[tuple[int, int]]


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int, int]:
    """What SAME puts before and behind, and how many results it makes (TensorFlow, `GetWindowedOutputSize`)."""
    results = -(-size // stride)
    total = max((results - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2, results


def is_same(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pads: Pads
) -> bool:
    """Whether pads are those of SAME, with as many results."""
    for size, taps, step, apart, (before, after) in zip(sizes, kernel, stride, dilation, pads, strict=True):
        results = (size + before + after - (taps - 1) * apart - 1) // step + 1
        if same_pads(size, taps, step, apart) != (before, after, results):
            return False
    return True


def padded(
    b: TfliteBuilder,
    step: Step,
    source: int,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    pads: Pads,
    fill: float | None = None,
) -> tuple[int, int]:
    """An image `[batch, height, width, channels]` as a window's operator takes it, with its kind of padding.

    Args:
        b: the builder.
        step: the operator.
        source: the image.
        sizes: its height and width.
        kernel: of the window, as stride and dilation.
        stride: likewise.
        dilation: likewise.
        pads: before and behind, of height and width.
        fill: what is put there; None for zeros.
    """
    kinds = schema().Padding
    if not any(map(any, pads)):
        return source, kinds.VALID
    if is_same(sizes, kernel, stride, dilation, pads):
        return source, kinds.SAME
    shape = b.shape(step.node.tensors[0])
    grid = b.operand_grid(step)
    wide = (shape[0], *(size + before + after for size, (before, after) in zip(sizes, pads, strict=True)), shape[1])
    made = b.inner(step, wide, grid)
    return pad(b, source, made, [(0, 0), *pads, (0, 0)], fill, grid), kinds.VALID


def pad(b: TfliteBuilder, source: int, output: int, pads: Pads, fill: float | None, grid: Grid | None) -> int:
    """PAD with zeros, PADV2 with another number."""
    amounts = b.integers([list(pair) for pair in pads])
    if fill is None:
        return b.emit("PAD", [source, amounts], output, "PadOptions")
    return b.emit("PADV2", [source, amounts, b.number(fill, 1, grid)], output, "PadV2Options")
