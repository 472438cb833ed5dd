"""Normalizations that are written out: layer norm, RMS norm, and group norm by way of instance norm."""

from __future__ import annotations

from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Match, Network
from bitwright.quant.onnx_import.patterns.registry import ends_in


def _root_mean_square(
    network: Network, name: str | None, root_op: str
) -> tuple[str, float, tuple[int, ...], list[Call]] | None:
    """Operand, eps, axes and calls of `sqrt(mean(x * x) + eps)`, or of its reciprocal."""
    root = network.maker(name, root_op)
    add = network.maker(root.operands[0], "add") if root else None
    mean = network.maker(add.operands[0], "mean") if add and len(add.operands) == 1 else None
    square = network.maker(mean.operands[0], "pow", "mul") if mean else None
    if root is None or add is None or mean is None or square is None or not mean.attributes["keepdim"]:
        return None
    is_square = square.attributes.get("exponent") == 2 if square.op == "pow" else len(set(square.operands)) == 1
    if not is_square or (square.op == "mul" and len(square.operands) != 2):
        return None
    return square.operands[0], float(add.attributes["other"]), mean.attributes["dim"], [root, add, mean, square]


def _quotient(network: Network, call: Call) -> tuple[str, str, str] | None:
    """The two sides of `a / sqrt(b)` or `a * rsqrt(b)`, and which of the roots the second one has to be."""
    if len(call.operands) != 2:
        return None
    if call.op == "div":
        return call.operands[0], call.operands[1], "sqrt"
    for a, b in (call.operands, call.operands[::-1]):
        if network.maker(b, "rsqrt"):
            return a, b, "rsqrt"
    return None


def _last_dims(network: Network, x: str, dims: tuple[int, ...]) -> tuple[int, ...] | None:
    """The sizes of the dimensions, when they are the last ones."""
    rank = len(network.shape(x))
    first = rank - len(dims)
    sizes = network.shape(x)[first:]
    is_last = tuple(sorted(d % rank for d in dims)) == tuple(range(first, rank)) if rank else False
    return tuple(size for size in sizes if size is not None) if is_last and None not in sizes else None


@ends_in("div", "mul")
def _normalized(network: Network, call: Call) -> Match | None:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps), or without the mean for RMS norm."""
    sides = _quotient(network, call)
    found = _root_mean_square(network, sides[1], sides[2]) if sides else None
    if sides is None or found is None or found[0] != sides[0]:
        return None
    x, eps, dims, calls = found
    consumed = [*calls]
    centered = network.maker(x, "sub")
    mean = network.maker(centered.operands[1], "mean") if centered and len(centered.operands) == 2 else None
    if centered is not None and mean is not None and mean.operands == [centered.operands[0]]:
        sizes = _last_dims(network, mean.operands[0], dims)
        same = mean.attributes["dim"] == dims and mean.attributes["keepdim"]
        if sizes is not None and same and network.may_be(call, "layer_norm"):
            attributes = {"normalized_shape": sizes, "eps": eps, "cudnn_enable": True}
            consumed += [centered, mean]
            return Match(
                op="layer_norm", inputs=[mean.operands[0], None, None], attributes=attributes, consumed=consumed
            )
    sizes = _last_dims(network, x, dims)
    if sizes is None or not network.may_be(call, "rms_norm"):
        return None
    return Match(op="rms_norm", inputs=[x, None], attributes={"normalized_shape": sizes, "eps": eps}, consumed=consumed)


@ends_in("mul", "add")
def _affine(network: Network, call: Call) -> Match | None:
    """The scale and the shift behind a norm that has none."""
    position = 1 if call.op == "mul" else 2
    for value, parameter in (call.inputs, call.inputs[::-1]) if len(call.operands) == 2 else ():
        norm = network.maker(value, "layer_norm", "rms_norm", "group_norm")
        if norm is None or not network.is_constant(parameter) or position >= len(norm.inputs):
            continue
        if any(norm.inputs[position:]) or not network.may_be(call, norm.op):
            continue
        vector = _one_a_channel(network, norm, parameter or "")
        if vector is not None:
            inputs = list(norm.inputs)
            inputs[position] = vector
            return Match(op=norm.op, inputs=inputs, attributes=norm.attributes, consumed=[norm])
    return None


def _one_a_channel(network: Network, norm: Call, parameter: str) -> str | None:
    if norm.op != "group_norm":
        return parameter if network.shape(parameter) == norm.attributes["normalized_shape"] else None
    shape = network.shape(norm.operands[0])
    vector = network.draft.unshaped(parameter)
    spread = (shape[1], *[1] * (len(shape) - 2))
    fits = network.shape(parameter)[-len(spread) :] == spread
    return vector if fits and network.shape(vector) == shape[1:2] else None


@ends_in("reshape")
def _group_norm(network: Network, call: Call) -> Match | None:
    """Instance norm over [N, groups, rest], in between two reshapes."""
    norm = network.maker(call.operands[0], "instance_norm")
    flat = network.maker(norm.operands[0], "reshape") if norm else None
    if norm is None or flat is None or not network.may_be(call, "group_norm"):
        return None
    x = flat.operands[0]
    if network.shape(x) != network.shape(call.outputs[0]) or len(network.shape(flat.outputs[0])) != 3:
        return None
    trivial = all(_is_filled(network, name, value) for name, value in zip(norm.inputs[1:3], (1, 0), strict=True))
    groups = network.shape(flat.outputs[0])[1]
    if not trivial or groups is None:
        return None
    attributes = {"num_groups": groups, "eps": norm.attributes["eps"], "cudnn_enabled": True}
    return Match(op="group_norm", inputs=[x, None, None], attributes=attributes, consumed=[norm, flat])


def _is_filled(network: Network, name: str | None, value: float) -> bool:
    content = network.draft.values.content(name) if name is not None else None
    return name is None or (content is not None and bool((content == value).all()))
