"""The operators that work on each element by itself and read one tensor. Torch-free."""

from __future__ import annotations

ELEMENTWISE = frozenset(
    """
    relu hardtanh hardswish hardsigmoid sigmoid tanh silu gelu mish elu leaky_relu softplus neg abs exp log sqrt rsqrt
    square reciprocal sin cos erf floor ceil round clamp clamp_min clamp_max to logical_not
    """.split()  # noqa: SIM905 - a list of thirty strings is harder to read
)
