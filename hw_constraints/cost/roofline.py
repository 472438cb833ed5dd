"""The roofline: an operation takes as long as its arithmetic or its busiest memory, whichever is longer.

    t = max(MACs / rate, bytes_m / bandwidth_m for each memory m) + launch

Source: S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore
architectures", CACM 2009. Transfers are taken to overlap with arithmetic, weights to be used once.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.hw_constraints.lower.hardware import Hardware
from bitwright.hw_constraints.lower.program import LoweredOp, Traffic
from bitwright.hw_constraints.target_hardware import Engine
from bitwright.hw_constraints.target_types import Target

# Formats to look for when an engine has no rate for a number of bits, narrow ones first: it computes in a wider one.
_WIDER = {
    8: ("int8", "float8_e4m3fn", "float16", "bfloat16", "float32"),
    16: ("float16", "bfloat16", "int16", "float32"),
    32: ("float32", "bfloat16", "float16"),
}


@dataclass(frozen=True, kw_only=True)
class Roof:
    """What bounds one operation.

    Attributes:
        compute_s: of its arithmetic; 0 without.
        memory_s: by memory, of its bytes; memories without a bandwidth are left out.
        fmt: the format whose rate was taken.
    """

    compute_s: float
    memory_s: dict[str, float]
    fmt: str

    @property
    def seconds(self) -> float:
        """The higher roof."""
        return max(self.compute_s, self.transfer_s)

    @property
    def transfer_s(self) -> float:
        """Of the busiest memory."""
        return max(self.memory_s.values(), default=0.0)

    @property
    def bound_by(self) -> str:
        """Which roof that is."""
        if self.compute_s >= self.transfer_s:
            return "compute"
        return max(self.memory_s, key=lambda name: self.memory_s[name])


def roof_of(op: LoweredOp, engine: Engine, target: Target, hardware: Hardware) -> Roof:
    """The roofs of one operation on one engine."""
    macs = op.work.macs if op.work else 0
    fmt, rate = rate_of(op, engine, target)
    clock = engine.clock_hz
    memory_s = {}
    for name, each in op.traffic.items():
        memory = hardware.memory(name)
        bandwidth = memory.bytes_per_second(clock) if memory else None
        if bandwidth:
            memory_s[name] = each.total / bandwidth
    compute_s = macs / rate if rate and macs else _element_seconds(op, engine)
    return Roof(compute_s=compute_s, memory_s=memory_s, fmt=fmt)


def rate_of(op: LoweredOp, engine: Engine, target: Target) -> tuple[str, float | None]:
    """The format in which an operation multiplies and the multiply-accumulates per second in it."""
    bits = max(op.work.input_bits, op.work.weight_bits) if op.work else 32
    own = [target.numerics.weights[0].format, target.numerics.activations[0].format]
    names = [fmt.name for fmt in own if fmt.bits == bits] + list(_WIDER.get(bits, _WIDER[32]))
    for name in names:
        rate = engine.macs_per_second(name)
        if rate:
            return name, rate
    return names[0], None


def _element_seconds(op: LoweredOp, engine: Engine) -> float:
    """Of work that multiplies nothing, where the target says how many results a cycle gives."""
    if op.work is None or engine.clock_hz is None:
        return 0.0
    figure = engine.elements_per_cycle(op.work.kind, op.block.op)
    return op.work.results / (figure.value * engine.clock_hz) if figure else 0.0


def energy_uj(op: LoweredOp, engine: Engine, target: Target, fmt: str, traffic: dict[str, Traffic]) -> float | None:
    """Of arithmetic and of bytes moved, microjoules; None unless the target gives an energy for every part."""
    macs = op.work.macs if op.work else 0
    per_mac = engine.figures.get(f"{fmt}_energy")
    if macs and per_mac is None:
        return None
    joules = macs * per_mac.value if per_mac else 0.0
    for name, each in traffic.items():
        memory = target.memories.get(name)
        figure = memory.figures.get("energy") if memory else None
        if figure is None:
            return None
        joules += each.total * figure.value
    return joules * 1e6
