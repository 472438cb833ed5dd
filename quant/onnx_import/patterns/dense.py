"""Layers that multiply matrices: `linear` out of MatMul, Add, and reshapes around a Gemm."""

from __future__ import annotations

from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Match, Network
from bitwright.quant.onnx_import.patterns.registry import ends_in


@ends_in("matmul")
def _constant_right(network: Network, call: Call) -> Match | None:
    """A product with a constant matrix is a layer; in our own files only where the network called it one."""
    x, weight = call.operands
    if not network.is_constant(weight) or network.is_constant(x) or len(network.shape(weight)) != 2:
        return None
    if not _is_layer(network, call) or network.shape(x) == (None,):
        return None
    return Match(op="linear", inputs=[x, network.draft.transposed(weight), None])


def _is_layer(network: Network, call: Call) -> bool:
    """Whether a call may be (a part of) a linear layer; in our own files only what says that it was."""
    return network.origin(call).op == "linear" or (network.may_be(call, "linear") and not network.draft.is_own)


@ends_in("add")
def _bias(network: Network, call: Call) -> Match | None:
    """`linear` without a bias, and a constant for each of its columns behind it."""
    for product, bias in (call.inputs, call.inputs[::-1]) if len(call.operands) == 2 else ():
        layer = network.maker(product, "linear")
        if layer is None or layer.inputs[2] is not None or not network.is_constant(bias):
            continue
        columns = network.shape(layer.inputs[1] or "")[0]
        vector = network.draft.unshaped(bias or "")
        if network.shape(vector) == (columns,) and _is_layer(network, call):
            return Match(op="linear", inputs=[*layer.inputs[:2], vector], consumed=[layer])
    return None


@ends_in("add")
def _baddbmm(network: Network, call: Call) -> Match | None:
    """Only where the network called it so: a sum behind a product is two operators elsewhere."""
    product = network.maker(call.operands[0], "matmul")
    if product is None or len(call.operands) != 2 or network.origin(call).op != "baddbmm":
        return None
    inputs = [call.operands[1], *product.inputs]
    return Match(op="baddbmm", inputs=inputs, attributes={"beta": 1, "alpha": 1}, consumed=[product])


@ends_in("reshape")
def _rows(network: Network, call: Call) -> Match | None:
    """A matrix's rows are one dimension in Gemm; around it stand reshapes that keep the last dimension."""
    layer = network.maker(call.operands[0], "linear")
    flat = network.maker(layer.operands[0], "reshape", "flatten") if layer else None
    if layer is None or flat is None:
        return None
    before, after = network.shape(flat.operands[0]), network.shape(call.outputs[0])
    inner = network.shape(layer.operands[0]), network.shape(layer.outputs[0])
    keeps = before[:-1] == after[:-1] and before[-1:] == inner[0][-1:] and after[-1:] == inner[1][-1:]
    if not keeps or None in before[1:] or not network.may_be(call, "linear"):
        return None
    return Match(op="linear", inputs=[flat.operands[0], *layer.inputs[1:]], consumed=[layer, flat])
