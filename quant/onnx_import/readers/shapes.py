"""Operators that move, cut and join, from ONNX."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bitwright.quant.onnx_import.calls import Misfit, Reader, require
from bitwright.quant.onnx_import.readers.registry import axis_of, reads
from bitwright.quant.onnx_import.values import Shape, ValueType

_LAST = int(np.iinfo(np.int64).max)


@reads("Reshape")
def _reshape(r: Reader) -> None:
    """The target's numbers are in the result's shape; what stays open there is open."""
    _close_last_dimension(r, r.input(0), r.node.output[0])
    r.emit("reshape", [r.input(0)], shape=_sizes(r.shape(r.node.output[0])))


def _close_last_dimension(r: Reader, source: str, result: str) -> None:
    """Where the open dimensions of the operand stand in the result by name, the one that is left has a size."""
    before, after = r.values.types[source], r.values.types[result]
    open_before = sorted(name for size, name in zip(before.shape, before.symbols, strict=False) if size is None)
    open_after = sorted(name for size, name in zip(after.shape, after.symbols, strict=False) if size is None)
    if not open_before or open_after != ["", *open_before] or "" in open_before:
        return
    total, rest = (math.prod(size for size in kind.shape if size is not None) for kind in (before, after))
    if rest and total % rest == 0:
        place = next(i for i, size in enumerate(after.shape) if size is None and not after.symbols[i])
        shape = (*after.shape[:place], total // rest, *after.shape[place + 1 :])
        r.values.types[result] = ValueType(shape, after.dtype, after.symbols)


def _sizes(shape: Shape) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in shape)


@reads("Flatten")
def _flatten(r: Reader) -> None:
    axis, rank = r.integer("axis", 1), r.rank(r.input(0))
    if axis in (1, 1 - rank) and rank > 1:
        r.emit("flatten", [r.input(0)], start_dim=1, end_dim=-1)
    else:
        r.emit("reshape", [r.input(0)], shape=_sizes(r.shape(r.node.output[0])))


@reads("Squeeze", "Unsqueeze")
def _squeeze(r: Reader) -> None:
    op, x = r.node.op_type.lower(), r.input(0)
    axes = r.integers("axes", ()) if r.given("axes") else tuple(r.ints(1) or ())
    if op == "squeeze" and axes:
        r.emit("squeeze", [x], dim=axes[0] if len(axes) == 1 else axes)
    elif op == "unsqueeze" and len(axes) == 1:
        r.emit("unsqueeze", [x], dim=axes[0])
    else:
        r.emit("reshape", [x], shape=_sizes(r.shape(r.node.output[0])))


@reads("Transpose")
def _transpose(r: Reader) -> None:
    rank = r.rank(r.input(0))
    dims = r.integers("perm", tuple(reversed(range(rank))))
    require(sorted(dims) == list(range(rank)), "a permutation of other axes than its input has")
    r.emit("permute", [r.input(0)], dims=dims)


@reads("Expand")
def _expand(r: Reader) -> None:
    if r.shape(r.input(0)) == r.shape(r.node.output[0]) and None not in r.shape(r.input(0)):
        r.alias(r.input(0))
    else:
        r.emit("expand", [r.input(0)], size=_sizes(r.shape(r.node.output[0])), implicit=False)


@reads("Tile")
def _tile(r: Reader) -> None:
    r.emit("repeat", [r.input(0)], repeats=tuple(r.ints(1) or ()))


@reads("Concat")
def _concat(r: Reader) -> None:
    names = [r.input(i) for i in range(len(r.inputs))]
    require(bool(names), "no operands")
    r.emit("cat", names, dim=r.integer("axis", 0))


@reads("Split")
def _split(r: Reader) -> None:
    """By the sizes of its results, which inference has worked out."""
    x, axis = r.input(0), r.integer("axis", 0)
    rank = r.rank(x)
    require(-rank <= axis < rank and all(r.node.output), "an axis that is not there, or a part without a name")
    shapes = [r.shape(name) for name in r.node.output]
    require(all(len(shape) == rank for shape in shapes), "parts of another rank")
    sizes = tuple(shape[axis] if shape[axis] is not None else -1 for shape in shapes)
    r.emit("split_with_sizes", [x], split_sizes=sizes, dim=axis)


@reads("Slice")
def _slice(r: Reader) -> None:
    """One call for each axis that is cut; a step of -1 over everything is `flip`."""
    x, rank = r.input(0), r.rank(r.input(0))
    if r.values.opset < 10:
        starts, ends = list(r.integers("starts")), list(r.integers("ends"))
        axes, steps = list(r.integers("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = r.ints(1) or [], r.ints(2) or []
        axes = r.ints(3) or list(range(len(starts)))
        steps = r.ints(4) or [1] * len(starts)
    require(len({len(starts), len(ends), len(axes), len(steps)}) == 1, "bounds of unlike number")
    require(all(-rank <= axis < rank for axis in axes), "an axis that is not there")
    cuts = [cut for cut in zip(starts, ends, axes, steps, strict=True) if not _is_whole(r.shape(x)[cut[2]], cut)]
    if cuts and all(step == -1 and _is_reversal(r.shape(x)[axis], start, end) for start, end, axis, step in cuts):
        r.emit("flip", [x], dims=tuple(cut[2] for cut in cuts))
        return
    require(all(cut[3] > 0 for cut in cuts), "a step backwards")
    if not cuts:
        r.alias(x)
    shape = list(r.shape(x))
    for position, (start, end, axis, step) in enumerate(cuts):
        shape[axis] = r.shape(r.node.output[0])[axis] if r.rank(r.node.output[0]) == rank else None
        last = position == len(cuts) - 1
        result = r.node.output[0] if last else r.inner(str(position), tuple(shape), r.dtype(x))
        x = r.emit("slice", [x], [result], dim=axis, start=start, end=min(end, _LAST), step=step)


def _is_whole(size: int | None, cut: tuple[int, int, int, int]) -> bool:
    start, end, _, step = cut
    return step == 1 and start == 0 and (end >= _LAST // 2 or (size is not None and end >= size))


def _is_reversal(size: int | None, start: int, end: int) -> bool:
    return (start == -1 or (size is not None and start >= size - 1)) and (size is not None and end < -size)


@reads("Gather")
def _gather(r: Reader) -> None:
    """One index is `select`, rows of a table `embedding`, a row of indices `index_select`, others `index`."""
    x, indices = r.input(0), r.input(1)
    rank = r.rank(x)
    require(rank > 0, "an input without dimensions")
    axis = axis_of(r.integer("axis", 0), rank)
    index = r.values.content(indices)
    if r.shape(indices) == () and index is not None:
        r.emit("select", [x], dim=axis, index=int(index))
    elif r.values.is_constant(x) and rank == 2 and axis == 0 and r.dtype(x).startswith(("float", "bfloat")):
        r.emit("embedding", [x, indices], padding_idx=-1, scale_grad_by_freq=False, sparse=False)
    elif len(r.shape(indices)) == 1:
        r.emit("index_select", [x, indices], dim=axis)
    else:
        r.emit("index", [x, *[None] * axis, indices])


@reads("GatherElements")
def _gather_elements(r: Reader) -> None:
    r.emit("gather", [r.input(0), r.input(1)], dim=r.integer("axis", 0), sparse_grad=False)


@reads("ScatterElements", "Scatter")
def _scatter(r: Reader) -> None:
    operands, dim = [r.input(0), r.input(1), r.input(2)], r.integer("axis", 0)
    reduction = r.text("reduction", "none")
    if reduction == "none":
        r.emit("scatter", operands, dim=dim)
    elif reduction == "add":
        r.emit("scatter_add", operands, dim=dim)
    else:
        names = {"mul": "prod", "max": "amax", "min": "amin"}
        r.emit("scatter_reduce", operands, dim=dim, reduce=names.get(reduction, reduction), include_self=True)


@reads("ScatterND")
def _scatter_nd(r: Reader) -> None:
    """Of ATen's operators, `index_put` writes where indices say."""
    reduction = r.text("reduction", "none")
    require(reduction in ("none", "add"), f"reduction {reduction!r}")
    r.emit("index_put", [r.input(0), r.input(1), r.input(2)], accumulate=reduction == "add")


@reads("Pad")
def _pad(r: Reader) -> None:
    x, rank = r.input(0), r.rank(r.input(0))
    if r.values.opset < 11:
        pads, value = list(r.integers("pads")), r.real("value", 0.0)
    else:
        pads, value = r.ints(1) or [], r.number(2) or 0.0
    axes = [axis_of(axis, rank) for axis in r.ints(3) or range(rank)]
    require(len(pads) == 2 * len(axes), "pads of another rank")
    mode = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}.get(r.text("mode", "constant"), "constant")
    pairs = _from_the_last(pads, axes, rank)
    if mode == "constant":
        r.emit("constant_pad_nd", [x], pad=pairs, value=value)
    else:
        r.emit("pad", [x], pad=pairs, mode=mode, value=None)


def _from_the_last(pads: Sequence[int], axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """ATen's order: the last dimension first, before and behind; dimensions in front that stay are left out."""
    by_axis = {axis: (pads[i], pads[len(axes) + i]) for i, axis in enumerate(axes)}
    pairs = [number for axis in reversed(range(rank)) for number in by_axis.get(axis, (0, 0))]
    while pairs and pairs[-2:] == [0, 0]:
        pairs = pairs[:-2]
    return tuple(pairs)


@reads("DepthToSpace", "SpaceToDepth")
def _depth_to_space(r: Reader) -> None:
    """ATen's order of channels is CRD; the others are reshapes around a permutation."""
    x, block = r.input(0), r.integer("blocksize", 1)
    require(r.rank(x) == 4 and block >= 1, "an input that is no image")
    if r.node.op_type == "DepthToSpace" and r.text("mode", "DCR") == "CRD":
        r.emit("pixel_shuffle", [x], upscale_factor=block)
        return
    n, c, h, w = r.static(x)
    if r.node.op_type == "DepthToSpace":
        split, order = (n, block, block, c // block**2, h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (n, c, h // block, block, w // block, block), (0, 3, 5, 1, 2, 4)
    parts = r.emit("reshape", [x], [r.inner("parts", split, r.dtype(x))], shape=split)
    moved = r.inner("moved", tuple(split[axis] for axis in order), r.dtype(x))
    r.emit("permute", [parts], [moved], dims=order)
    r.emit("reshape", [moved], shape=r.static(r.node.output[0]))


@reads("Trilu")
def _trilu(r: Reader) -> None:
    diagonal = (r.ints(1) or [0])[0]
    r.emit("triu" if r.integer("upper", 1) else "tril", [r.input(0)], diagonal=diagonal)


@reads("ConstantOfShape")
def _full(r: Reader) -> None:
    """Of a shape that is only known when the network runs; others are constants."""
    fill = next((attribute.t for attribute in r.node.attribute if attribute.name == "value"), None)
    if fill is not None and sum(fill.dims) > 1:
        raise Misfit("more than one value to fill with")
    kind = r.values.types[r.node.output[0]]
    r.emit("full", [], size=_sizes(kind.shape), dtype=kind.dtype)


@reads("Range")
def _range(r: Reader) -> None:
    r.emit("arange", [r.input(i) for i in range(3) if not r.values.is_constant(r.input(i))])
