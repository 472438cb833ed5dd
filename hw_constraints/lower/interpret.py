"""Runs a lowered program: tile by tile, out of byte arenas, at the addresses that the memory plan says.

Codes of every tensor, weight and tile's buffer lie in one array of bytes for each memory. A tile's inputs and weights
are copied into their buffers, computed from there, and results are copied back, so that a wrong address, an overlap of
two living buffers, or a tile that reads too little gives other results than the network run as a whole
(`tests/hw_constraints/lower/network_reference.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np

from bitwright.hw_constraints.lower.integer_ops import Array, Real, code_type, elementwise, to_codes
from bitwright.hw_constraints.lower.program import Address, LoweredGraph, LoweredOp
from bitwright.hw_constraints.lower.run_nest import Nest
from bitwright.hw_constraints.lower.storage import Storage
from bitwright.hw_constraints.lower.whole_ops import run_whole, runs_whole
from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.quant.geometry import place_operands
from bitwright.quant.graph import TRANSPOSED_CONVOLUTIONS, Node, TensorRef

Codes = Mapping[TensorRef, Array]


def interpret(
    lowered: LoweredGraph,
    inputs: Codes,
    constants: Callable[[TensorRef], Array],
    scales: Mapping[TensorRef, float],
    zero_points: Mapping[TensorRef, int] | None = None,
) -> dict[TensorRef, Array]:
    """The network's results as codes.

    Args:
        lowered: the program.
        inputs: codes of the network's inputs.
        constants: codes of a weight, bias or other constant.
        scales: of every tensor that is read or written, constants among them.
        zero_points: the codes of zero; tensors without one have symmetric codes.

    Raises:
        InputError: an operator or a format that the interpreter does not know.
    """
    machine = Machine(lowered, constants, scales, zero_points or {})
    for ref, codes in inputs.items():
        machine.write(ref, codes)
    for op in lowered.ops:
        machine.run(op)
    return {ref: machine.read(ref) for ref in lowered.program.graph.outputs}


class Machine:
    """Arenas of bytes, and what runs on them."""

    def __init__(
        self,
        lowered: LoweredGraph,
        constants: Callable[[TensorRef], Array],
        scales: Mapping[TensorRef, float],
        zero_points: Mapping[TensorRef, int],
    ) -> None:
        self.lowered, self.program, self.graph = lowered, lowered.program, lowered.program.graph
        self.scales, self.zero_points = scales, zero_points
        plan = lowered.memory
        sizes = {name: peak + plan.constant_bytes.get(name, 0) for name, peak in plan.peak_bytes.items()}
        self.arenas = {name: np.zeros(size, np.uint8) for name, size in sizes.items()}
        self.transfers: dict[tuple[str, int], int] = {}  # how many tiles a buffer has seen: they alternate
        for ref in plan.constants:
            self.constant_codes(ref)[...] = constants(ref).ravel()

    # --- codes in arenas ---

    def _bytes(self, address: Address, base: int = 0) -> Array:
        start = base + address.offset
        return self.arenas[address.memory][start : start + address.bytes]

    def constant_codes(self, ref: TensorRef) -> Array:
        """The codes of a constant, side by side; constants lie behind everything that the program writes."""
        address = self.lowered.memory.constants[ref]
        base = self.lowered.memory.peak_bytes[address.memory]
        codes = self._bytes(address, base).view(code_type(self.program.bits(ref)))
        return codes[: self.graph.tensors[ref].elements]

    def codes(self, ref: TensorRef) -> Array:
        """The codes of a computed tensor as they are stored, side by side."""
        address, storage = self.lowered.memory.tensors[ref]
        return self._bytes(address)[: storage.bytes].view(code_type(storage.bits))

    def positions(self, ref: TensorRef) -> Array:
        """Where each element of a tensor stands among its stored codes, in the tensor's own shape."""
        if ref in self.lowered.memory.constants:
            shape = tuple(size or 0 for size in self.graph.tensors[ref].shape)
            return np.arange(math.prod(shape)).reshape(shape)
        storage: Storage = self.lowered.memory.tensors[ref][1]
        return storage.logical(np.arange(math.prod(storage.stored_shape)).reshape(storage.stored_shape))

    def all_codes(self, ref: TensorRef) -> Array:
        """The codes of a tensor as they are stored, whether it is computed or constant."""
        return self.constant_codes(ref) if ref in self.lowered.memory.constants else self.codes(ref)

    def read(self, ref: TensorRef) -> Array:
        """A whole tensor."""
        return self.all_codes(ref)[self.positions(ref)]

    def write(self, ref: TensorRef, codes: Array) -> None:
        """A whole tensor."""
        self.codes(ref)[self.positions(ref)] = codes

    def steps(self, ref: TensorRef) -> Real:
        """A whole tensor in steps of its scale: codes less the zero point."""
        return self.read(ref).astype(np.float64) - self.zero_points.get(ref, 0)

    def real(self, ref: TensorRef) -> Real:
        """A whole tensor's real values."""
        return self.steps(ref) * self.scales[ref]

    def coded(self, ref: TensorRef, values: Real) -> Array:
        """Real values as codes of a tensor."""
        return to_codes(values, self.scales[ref], self.program.bits(ref), self.zero_points.get(ref))

    # --- operations ---

    def run(self, op: LoweredOp) -> None:
        """One operation: by tiles if it has a nest that tiles are boxes of, else in one piece."""
        if op.work is None:
            return
        node = op.block.nodes[0] if op.block.nodes else None
        if node is None or op.work.kind is WorkKind.MOVE or runs_whole(self.graph, node):
            self._run_whole(op)
        else:
            Nest(self, op, node).run()

    def _run_whole(self, op: LoweredOp) -> None:
        block = op.block
        if not block.nodes:
            source, result = block.reads[0], block.writes[0]
            self.write(result, self.read(source))
            return
        node = block.nodes[0]
        shapes = [tuple(size or 0 for size in self.graph.tensors[ref].shape) for ref in node.outputs]
        if node.op in TRANSPOSED_CONVOLUTIONS or node.op == "conv3d":
            layer = [self.steps(ref) for ref in node.tensors[:2]]
            values = run_whole(node, layer, shapes)[0] * (self.scales[node.tensors[0]] * self.scales[node.tensors[1]])
            if len(node.tensors) > 2:
                values = values + self.real(node.tensors[2]).reshape(1, -1, *(1,) * (values.ndim - 2))
            results = [values]
        else:
            places = place_operands(self.graph, node)
            operands = [self.read(ref) if ref in places else self.real(ref) for ref in node.tensors]
            results = run_whole(node, operands, shapes)
        results = [self._followed(block.nodes, results[0])] if len(block.nodes) > 1 else results
        for ref, values in zip(block.nodes[-1].outputs, results, strict=True):
            if ref in block.writes:
                self.write(ref, self.coded(ref, values))

    def _followed(self, nodes: tuple[Node, ...], values: Real) -> Real:
        for before, node in itertools.pairwise(nodes):
            values = self.looked_up(before, node, values)
            operands = [values if ref == before.outputs[0] else self.real(ref) for ref in node.tensors]
            values = elementwise(node, operands)
        return values

    def looked_up(self, before: Node, node: Node, values: Real) -> Real:
        """What an operator inside a block reads: a function in a table reads codes, all others what was computed."""
        tables, ref = self.program.target.operators.table_lookups, before.outputs[0]
        if tables is None or node.op not in tables.of:
            return values
        return (self.coded(ref, values).astype(np.float64) - self.zero_points.get(ref, 0)) * self.scales[ref]
