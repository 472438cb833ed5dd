"""Layers whose shapes do not fit together: a broken file may claim anything, and what counts work believes shapes."""

from __future__ import annotations

from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Network

# The fewest dimensions of the operands and of the result; an unknown rank counts as one.
_FEWEST: dict[str, int] = {
    "linear": 1,
    "matmul": 1,
    "mm": 2,
    "bmm": 3,
    "addmm": 1,
    "baddbmm": 1,
    "scaled_dot_product_attention": 2,
}


def keep_misfits(network: Network) -> None:
    """Gives layers whose operands or results have too few dimensions their ONNX name back."""
    for call in network.calls:
        fewest = _FEWEST.get(call.op)
        if fewest is None or _fits(network, call, fewest):
            continue
        call.op, call.attributes = call.origin.op_type, {}
        network.draft.kept[call.outputs[0]] = "its operands do not fit together"


def _fits(network: Network, call: Call, fewest: int) -> bool:
    factors = call.operands[:3] if call.op == "scaled_dot_product_attention" else _factors(call)
    return all(len(network.shape(name)) >= fewest for name in (*factors, *call.outputs))


def _factors(call: Call) -> list[str]:
    """What is multiplied: the bias stands first in `addmm` and last in `linear`."""
    return call.operands[1:] if call.op in ("addmm", "baddbmm") else call.operands[:2]
