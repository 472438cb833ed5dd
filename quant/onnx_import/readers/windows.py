"""Kernels that slide: stride, dilation and padding of convolutions and pools."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.quant.onnx_import.calls import Misfit, Reader, require


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a kernel slides, one number for each spatial dimension; `before` and `after` are the padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def is_same_of_torch(self) -> bool:
        """Whether the padding is what `padding="same"` means: the odd element behind."""
        total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
        return (
            set(self.stride) == {1}
            and self.before == tuple(size // 2 for size in total)
            and self.after == tuple(size - size // 2 for size in total)
        )

    def padded(self, r: Reader, x: str, value: float) -> str:
        """Pads `x` by a call of its own; returns the result."""
        shape = list(r.shape(x))
        pairs: list[int] = []
        for axis in reversed(range(len(self.kernel))):
            pairs += [self.before[axis], self.after[axis]]
            size = shape[axis + 2]
            shape[axis + 2] = None if size is None else size + self.before[axis] + self.after[axis]
        result = r.inner("padded", tuple(shape), r.dtype(x))
        return r.emit("constant_pad_nd", [x], [result], pad=tuple(pairs), value=value)


def window_of(r: Reader, x: str, kernel: tuple[int, ...]) -> Window:
    """The window of a node with ONNX's usual attributes.

    Raises:
        Misfit: the attributes have other lengths than the kernel, or are no sizes.
    """
    rank = len(kernel)
    stride, dilation = r.integers("strides", (1,) * rank), r.integers("dilations", (1,) * rank)
    pads = r.integers("pads", (0,) * 2 * rank)
    require(len(stride) == len(dilation) == rank and len(pads) == 2 * rank, "attributes of another rank")
    require(min(*stride, *dilation, *kernel) >= 1 and min(pads) >= 0, "a kernel, stride, dilation or padding below 1")
    mode = r.text("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        pads = _same(r, x, kernel, stride, dilation, upper=mode == "SAME_UPPER")
    elif mode not in ("NOTSET", "VALID"):
        raise Misfit(f"auto_pad {mode!r}")
    return Window(kernel=kernel, stride=stride, dilation=dilation, before=pads[:rank], after=pads[rank:])


def _same(
    r: Reader, x: str, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], *, upper: bool
) -> tuple[int, ...]:
    """Output size is ceil(input / stride); the odd element is behind in SAME_UPPER, in front in SAME_LOWER."""
    before, after = [], []
    for size, k, s, d in zip(r.static(x)[2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        less, more = total // 2, total - total // 2
        before.append(less if upper else more)
        after.append(more if upper else less)
    return (*before, *after)
