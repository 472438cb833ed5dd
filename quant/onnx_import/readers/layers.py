"""Layers with weights, products of matrices, attention and normalization, from ONNX."""

from __future__ import annotations

from bitwright.quant.einsum import MatrixForm, product_form
from bitwright.quant.onnx_import.calls import Misfit, Reader, require
from bitwright.quant.onnx_import.readers.registry import axis_of, reads
from bitwright.quant.onnx_import.readers.windows import window_of


@reads("Conv", "com.microsoft::FusedConv")
def _conv(r: Reader) -> None:
    require(not r.given("activation"), "an activation of its own")
    read_conv(r, r.input(0), r.input(1), r.optional(2))


def read_conv(r: Reader, x: str, weight: str, bias: str | None) -> None:
    """A convolution with the node's attributes on given operands; unequal padding becomes a pad before it."""
    rank = r.rank(weight) - 2
    groups = r.integer("group", 1)
    _check_layer(r, x, weight, rank, groups)
    channels = r.shape(weight)[1]
    require(r.shape(x)[1] in (None, (channels or 0) * groups), "channels that do not fit the weight")
    window = window_of(r, x, tuple(size or 1 for size in r.shape(weight)[2:]))
    padding: str | tuple[int, ...] = window.before
    if window.before != window.after:
        if window.is_same_of_torch:
            padding = "same"
        else:
            x, padding = window.padded(r, x, 0.0), (0,) * rank
    r.emit(
        f"conv{rank}d",
        [x, weight, bias],
        stride=window.stride,
        padding=padding,
        dilation=window.dilation,
        groups=groups,
    )


@reads("ConvTranspose")
def _conv_transpose(r: Reader) -> None:
    x, weight = r.input(0), r.input(1)
    rank, groups = r.rank(weight) - 2, r.integer("group", 1)
    _check_layer(r, x, weight, rank, groups)
    require(r.shape(x)[1] in (None, r.shape(weight)[0]), "channels that do not fit the weight")
    kernel = tuple(size or 1 for size in r.shape(weight)[2:])
    stride, dilation = r.integers("strides", (1,) * rank), r.integers("dilations", (1,) * rank)
    more, pads = r.integers("output_padding", (0,) * rank), r.integers("pads", (0,) * 2 * rank)
    if r.given("output_shape") or r.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        sizes = zip(r.static(x)[2:], r.static(r.node.output[0])[2:], stride, kernel, dilation, more, strict=True)
        total = [s * (old - 1) + m + d * (k - 1) + 1 - new for old, new, s, k, d, m in sizes]
        pads = (*(size // 2 for size in total), *(size - size // 2 for size in total))
    require(len(pads) == 2 * rank and pads[:rank] == pads[rank:], "unequal padding")
    r.emit(
        f"conv_transpose{rank}d", [x, weight, r.optional(2)],
        stride=stride, padding=pads[:rank], output_padding=more, groups=groups, dilation=dilation,
    )  # fmt: skip


def _check_layer(r: Reader, x: str, weight: str, rank: int, groups: int) -> None:
    require(1 <= rank <= 3 and r.rank(x) == rank + 2, "an input of another rank than its weight")
    require(groups >= 1 and None not in r.shape(weight) and 0 not in r.shape(weight), "a weight without a shape")
    require(len(r.shape(r.node.output[0])) == rank + 2, "a result of another rank")


@reads("Gemm")
def _gemm(r: Reader) -> None:
    """With a transposed weight it is `linear`, else `addmm` or `mm`."""
    x, weight, bias = r.input(0), r.input(1), r.optional(2)
    require(r.rank(x) == 2 and r.rank(weight) == 2, "operands that are no matrices")
    alpha, beta = r.real("alpha", 1.0), r.real("beta", 1.0)
    if r.integer("transA", 0):
        x = r.emit("permute", [x], [r.inner("transposed", r.shape(x)[::-1], r.dtype(x))], dims=(1, 0))
    plain = alpha == 1 and (bias is None or (beta == 1 and len(r.shape(bias)) == 1))
    if plain and r.integer("transB", 0):
        r.emit("linear", [x, weight, bias])
        return
    if r.integer("transB", 0):
        dims = r.inner("turned", r.shape(weight)[::-1], r.dtype(weight))
        is_constant = r.values.is_constant(weight)
        weight = r.draft.transposed(weight) if is_constant else r.emit("permute", [weight], [dims], dims=(1, 0))
    if bias is not None:
        r.emit("addmm", [bias, x, weight], beta=beta, alpha=alpha)
    elif alpha == 1:
        r.emit("mm", [x, weight])
    else:
        raise Misfit("alpha other than 1 without a third operand")


@reads("MatMul")
def _matmul(r: Reader) -> None:
    left, right = r.input(0), r.input(1)
    require(r.rank(left) >= 1 and r.rank(right) >= 1, "an operand without dimensions")
    r.emit("matmul", [left, right])


@reads("Einsum")
def _einsum(r: Reader) -> None:
    """As capture takes it: a sum of two operands is a product of matrices, everything else stays one operator."""
    operands, equation = [r.input(i) for i in range(len(r.inputs))], r.text("equation", "")
    shapes = [r.shape(name) for name in operands]
    known = all(size is not None for shape in shapes for size in shape)
    form = product_form(equation, [[size or 0 for size in shape] for shape in shapes]) if known else None
    if form is None:
        r.emit("einsum", operands, equation=equation, path=None)
        return
    left, right = (
        _as_matrix(r, name, each, side)
        for name, each, side in zip(operands, (form.left, form.right), ("left", "right"), strict=True)
    )
    dtype, product = r.dtype(operands[0]), (*form.left.shape[:-1], form.right.shape[-1])
    ordered = form.order == tuple(range(len(form.order)))
    if product == form.unfolded and ordered:
        r.emit("matmul", [left, right])
        return
    made = r.emit("matmul", [left, right], [r.inner("product", product, dtype)])
    if ordered:
        r.emit("reshape", [made], shape=form.unfolded)
        return
    if product != form.unfolded:
        made = r.emit("reshape", [made], [r.inner("unfolded", form.unfolded, dtype)], shape=form.unfolded)
    r.emit("permute", [made], dims=form.order)


def _as_matrix(r: Reader, name: str, form: MatrixForm, side: str) -> str:
    """An operand of an Einstein sum with its axes in order, rows and columns each one axis."""
    shape, dtype = r.static(name), r.dtype(name)
    if form.order != tuple(range(len(shape))):
        shape = tuple(shape[axis] for axis in form.order)
        name = r.emit("permute", [name], [r.inner(f"{side}_turned", shape, dtype)], dims=form.order)
    if form.shape != shape:
        name = r.emit("reshape", [name], [r.inner(f"{side}_matrix", form.shape, dtype)], shape=form.shape)
    return name


@reads("Attention")
def _attention(r: Reader) -> None:
    """Opset 23's, where it is what ATen has: four dimensions, no cache, no cap."""
    query, key, value = r.input(0), r.input(1), r.input(2)
    require(all(r.rank(name) == 4 for name in (query, key, value)), "packed heads")
    require(r.optional(4) is None and not r.real("softcap", 0.0), "a cache or a cap")
    require(len([name for name in r.node.output if name]) == 1, "more than one result")
    scale = r.real("scale", 0.0) if r.given("scale") else None
    r.emit(
        "scaled_dot_product_attention", [query, key, value, r.optional(3)],
        dropout_p=0.0, is_causal=bool(r.integer("is_causal", 0)), scale=scale,
        enable_gqa=r.shape(query)[1] != r.shape(key)[1],
    )  # fmt: skip


@reads("BatchNormalization")
def _batch_norm(r: Reader) -> None:
    require(not r.integer("training_mode", 0), "training mode")
    require(r.rank(r.input(0)) >= 2, "an input without channels")
    r.emit(
        "batch_norm", [r.input(i) for i in range(5)],
        training=False, momentum=round(1 - r.real("momentum", 0.9), 6), eps=r.real("epsilon", 1e-5), cudnn_enabled=True,
    )  # fmt: skip


@reads("LayerNormalization")
def _layer_norm(r: Reader) -> None:
    require(len([name for name in r.node.output if name]) == 1, "mean or deviation as results")
    x, weight = r.input(0), r.input(1)
    axis = axis_of(r.integer("axis", -1), r.rank(x))
    normalized = r.static(x)[axis:] if None in r.shape(x)[axis:] else r.shape(x)[axis:]
    eps = r.real("epsilon", 1e-5)
    operands = [x, r.draft.parameter(weight), r.optional(2)]
    r.emit("layer_norm", operands, normalized_shape=normalized, eps=eps, cudnn_enable=True)


@reads("RMSNormalization")
def _rms_norm(r: Reader) -> None:
    x = r.input(0)
    axis = axis_of(r.integer("axis", -1), r.rank(x))
    r.emit("rms_norm", [x, r.input(1)], normalized_shape=r.shape(x)[axis:], eps=r.real("epsilon", 1e-5))


@reads("InstanceNormalization")
def _instance_norm(r: Reader) -> None:
    operands = [r.input(0), r.draft.parameter(r.input(1)), r.draft.parameter(r.input(2)), None, None]
    eps = r.real("epsilon", 1e-5)
    r.emit("instance_norm", operands, use_input_stats=True, momentum=0.1, eps=eps, cudnn_enabled=True)


@reads("GroupNormalization")
def _group_norm(r: Reader) -> None:
    require(r.values.opset >= 21, "one scale for each group")
    operands = [r.input(0), r.input(1), r.input(2)]
    groups, eps = r.integer("num_groups", 1), r.real("epsilon", 1e-5)
    r.emit("group_norm", [operands[0], *operands[1:]], num_groups=groups, eps=eps, cudnn_enabled=True)


@reads("LSTM", "GRU", "RNN")
def _recurrent(r: Reader) -> None:
    """One layer; ONNX has the directions in front of its weights, the calls of ATen one weight for each."""
    x, op = r.input(0), r.node.op_type.lower()
    require(r.optional(4) is None and not r.integer("layout", 0), "sequences of unlike length, or the batch in front")
    states = [r.optional(5), *([r.optional(6)] if op == "lstm" else [])]
    direction = r.text("direction", "forward")
    require(direction in ("forward", "bidirectional"), "a reversed direction alone")
    weights = [r.input(1), r.input(2), r.optional(3)]
    r.emit(
        "rnn_tanh" if op == "rnn" else op, [x, *states, *weights],
        has_biases=weights[2] is not None, num_layers=1, dropout=0.0, train=False,
        bidirectional=direction == "bidirectional", batch_first=False, hidden_size=r.integer("hidden_size", 0),
    )  # fmt: skip
