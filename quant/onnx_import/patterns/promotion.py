"""Casts that exist because ONNX computes in one type where ATen takes two."""

from __future__ import annotations

from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Match, Network
from bitwright.quant.onnx_import.patterns.registry import ends_in


@ends_in("add", "sub", "rsub", "mul", "div", "pow", "maximum", "minimum", "where", "eq", "lt", "gt", "le", "ge")
def _promoted(network: Network, call: Call) -> Match | None:
    """A cast that the file says was part of this operator."""
    if not network.origin(call).group:
        return None
    group = network.group(call)
    made = {name: network.maker(name, "to") for name in call.operands}
    casts = {name: cast for name, cast in made.items() if cast is not None and cast in group}
    if not casts:
        return None
    inputs = [casts[name].operands[0] if name is not None and name in casts else name for name in call.inputs]
    return Match(op=call.op, inputs=inputs, attributes=call.attributes, consumed=list(casts.values()))
