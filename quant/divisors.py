"""What must not become zero: codes round small numbers to zero, and a quotient by it is infinite or no number.

`x / (y + 1e-5)` has no infinities in float; in eight bits `y + 1e-5` is `y`, and its smallest codes are zero.
Torch-free.
"""

from __future__ import annotations

from bitwright.quant.graph import Node, TensorRef

# Infinite, or no number, at zero: the position of the operand.
_SINGULAR_AT_ZERO = {"div": 1, "reciprocal": 0, "rsqrt": 0, "log": 0, "log2": 0, "log10": 0}


def reads_as_divisor(node: Node, ref: TensorRef) -> bool:
    """Whether a call divides by a tensor, or is as infinite at zero as if it did."""
    position = _SINGULAR_AT_ZERO.get(node.op)
    return position is not None and position < len(node.inputs) and node.inputs[position] == ref
