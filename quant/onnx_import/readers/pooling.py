"""Pooling, reductions and searches, from ONNX."""

from __future__ import annotations

from bitwright.quant.onnx_import.calls import Reader, require
from bitwright.quant.onnx_import.readers.registry import axis_of, reads
from bitwright.quant.onnx_import.readers.windows import window_of


@reads("MaxPool")
def _max_pool(r: Reader) -> None:
    """Unequal padding becomes a pad with what never wins."""
    x, rank = r.input(0), r.rank(r.input(0)) - 2
    require(len([name for name in r.node.output if name]) == 1, "indices as a result")
    kernel = r.integers("kernel_shape")
    require(1 <= rank <= 3 and len(kernel) == rank, "a kernel of another rank than its input")
    window = window_of(r, x, kernel)
    padding = window.before
    if window.before != window.after:
        x, padding = window.padded(r, x, float("-inf")), (0,) * rank
    r.emit(
        f"max_pool{rank}d", [x], kernel_size=kernel, stride=window.stride, padding=padding, dilation=window.dilation,
        ceil_mode=bool(r.integer("ceil_mode", 0)),
    )  # fmt: skip


@reads("AveragePool")
def _average_pool(r: Reader) -> None:
    x, rank = r.input(0), r.rank(r.input(0)) - 2
    kernel = r.integers("kernel_shape")
    require(1 <= rank <= 3 and len(kernel) == rank, "a kernel of another rank than its input")
    window = window_of(r, x, kernel)
    require(set(window.dilation) == {1}, "a dilation")
    counted, padding = bool(r.integer("count_include_pad", 0)), window.before
    if window.before != window.after:
        require(counted, "unequal padding that is not counted")
        x, padding = window.padded(r, x, 0.0), (0,) * rank
    r.emit(
        f"avg_pool{rank}d", [x], kernel_size=kernel, stride=window.stride, padding=padding,
        ceil_mode=bool(r.integer("ceil_mode", 0)), count_include_pad=counted, divisor_override=None,
    )  # fmt: skip


@reads("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(r: Reader) -> None:
    x, rank = r.input(0), r.rank(r.input(0)) - 2
    require(1 <= rank <= 3 and r.rank(r.node.output[0]) == rank + 2, "an input that is no image")
    kind = "avg" if r.node.op_type == "GlobalAveragePool" else "max"
    r.emit(f"adaptive_{kind}_pool{rank}d", [x], output_size=(1,) * rank)


_REDUCTIONS = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "ReduceMin": "amin", "ReduceProd": "prod",
               "ReduceLogSumExp": "logsumexp", "ReduceL1": "linalg_vector_norm",
               "ReduceL2": "linalg_vector_norm"}  # fmt: skip


@reads(*_REDUCTIONS)
def _reduce(r: Reader) -> None:
    """A mean over all spatial dimensions that keeps them is a global average pool, as ONNX writes that, too."""
    x, rank = r.input(0), r.rank(r.input(0))
    axes = list(r.integers("axes", ())) if r.given("axes") else r.ints(1)
    if not axes and r.integer("noop_with_empty_axes", 0):
        r.alias(x)
        return
    require(all(-rank <= axis < rank for axis in axes or ()), "an axis that is not there")
    dims = tuple(sorted(axis_of(axis, rank) for axis in axes or range(rank)))
    keep, op = bool(r.integer("keepdims", 1)), _REDUCTIONS[r.node.op_type]
    floating = r.dtype(x).startswith(("float", "bfloat"))
    if op == "mean" and keep and floating and 3 <= rank <= 5 and dims == tuple(range(2, rank)):
        r.emit(f"adaptive_avg_pool{rank - 2}d", [x], output_size=(1,) * (rank - 2))
    elif op == "linalg_vector_norm":
        r.emit(op, [x], ord=int(r.node.op_type[-1]), dim=dims, keepdim=keep, dtype=None)
    elif op in ("amax", "amin", "logsumexp"):
        r.emit(op, [x], dim=dims, keepdim=keep)
    else:
        r.emit(op, [x], dim=dims, keepdim=keep, dtype=None)


@reads("ArgMax", "ArgMin")
def _argmax(r: Reader) -> None:
    axis = axis_of(r.integer("axis", 0), r.rank(r.input(0)))
    r.emit(r.node.op_type.lower(), [r.input(0)], dim=axis, keepdim=bool(r.integer("keepdims", 1)))


@reads("TopK")
def _topk(r: Reader) -> None:
    x = r.input(0)
    k = r.integer("k", 0) if r.values.opset < 10 else (r.ints(1) or [0])[0]
    axis, largest = r.integer("axis", -1), bool(r.integer("largest", 1))
    require(len(r.node.output) == 2, "other than two results")
    outputs = [name or r.inner(f"unused{i}", r.shape(x), r.dtype(x)) for i, name in enumerate(r.node.output)]
    r.emit("topk", [x], outputs, k=k, dim=axis, largest=largest, sorted=bool(r.integer("sorted", 1)))


@reads("CumSum")
def _cumsum(r: Reader) -> None:
    require(not r.integer("exclusive", 0) and not r.integer("reverse", 0), "exclusive or reverse")
    r.emit("cumsum", [r.input(0)], dim=(r.ints(1) or [0])[0], dtype=None)


@reads("NonZero")
def _nonzero(r: Reader) -> None:
    r.emit("nonzero", [r.input(0)])


@reads("NonMaxSuppression")
def _nms(r: Reader) -> None:
    r.emit("nms", [r.input(0), r.input(1)], iou_threshold=r.number(3), max_output_size=r.number(2))


@reads("OneHot")
def _one_hot(r: Reader) -> None:
    r.emit("one_hot", [r.input(0)], num_classes=r.number(1))
