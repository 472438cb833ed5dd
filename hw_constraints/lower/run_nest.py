"""Runs one operation of a lowered program tile by tile, through the buffers that the program has for its operands."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bitwright.hw_constraints.lower.array_steps import TILED, loop_lengths
from bitwright.hw_constraints.lower.integer_ops import Array, Real, along_rows, elementwise, products, reduce_rows
from bitwright.hw_constraints.lower.nests import Box, data_form, is_rows, result_form, weights_form, window_index
from bitwright.hw_constraints.lower.phases import Phases
from bitwright.hw_constraints.lower.program import LoweredOp, Role
from bitwright.hw_constraints.lower.storage import PLAIN
from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.hw_constraints.target_hardware import Loop
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TRANSPOSED_CONVOLUTIONS, Node, TensorRef

if TYPE_CHECKING:
    from bitwright.hw_constraints.lower.interpret import Machine


class Nest:
    """One operation, tile by tile."""

    def __init__(self, machine: Machine, op: LoweredOp, node: Node) -> None:
        assert op.work is not None
        self.machine, self.op, self.node, self.work = machine, op, node, op.work
        self.graph, self.scales = machine.graph, machine.scales
        self.result = op.block.writes[0]
        self.image = machine.program.layouts.get(self.result, PLAIN) != PLAIN
        self.rows = is_rows(node, op.work)
        self.phases = Phases.of(machine.graph, node) if node.op in TRANSPOSED_CONVOLUTIONS else None
        self.multiplies = op.work.macs > 0
        self.sums: dict[Any, Real] = {}
        form = result_form(self.graph, node, op.work, machine.positions(self.result), self.image)
        self.result_positions = form
        self.data = self.weights = self.bias = None
        self.data_positions = self.weight_positions = np.zeros(0)
        if op.work.kind is WorkKind.ELEMENTWISE:
            return
        data, weight, bias = self.graph.layer_positions(node) if self.multiplies else (0, 0, 0)
        self.data = node.inputs[data]
        assert self.data is not None
        self.data_positions = data_form(self.graph, node, op.work, machine.positions(self.data), self.image)
        if self.multiplies:
            self.weights = node.inputs[weight]
            assert self.weights is not None
            stored = machine.positions(self.weights)
            self.weight_positions = stored if self.phases else weights_form(self.graph, node, op.work, stored)
            self.bias = node.inputs[bias] if bias < len(node.inputs) else None

    def run(self) -> None:
        """All tiles in the order of the tiling; one tile where there is none."""
        for box, last in self._boxes():
            if self.work.kind is WorkKind.ELEMENTWISE:
                values = self._chain(self.op.block.nodes, None, box)
            elif self.rows:
                codes = self._fetch(Role.INPUT, self.data, self.data_positions[box.columns])
                values = along_rows(self.node, codes * self._scale(self.data))[:, box.out_channels]
                values = np.moveaxis(values, -1, 0)[None, None, :, None]
            else:
                found = self._accumulated(box)
                if not last:
                    continue
                values = self._chain(self.op.block.nodes[1:], self._finished(found, box), box)
            self._store(values, box)

    def _boxes(self) -> Iterator[tuple[Box, bool]]:
        """Each tile, and whether it is the last one that adds to its results."""
        lengths = list(loop_lengths(self.work).values())
        tiling = self.op.tiling
        sizes = [tiling.sizes[loop] for loop in TILED] if tiling else lengths
        order = [TILED.index(loop) for loop in tiling.order] if tiling else list(range(6))
        inner = TILED.index(Loop.IN_CHANNELS)
        for outer in itertools.product(*(range(0, lengths[loop], sizes[loop]) for loop in order)):
            starts = [outer[order.index(loop)] for loop in range(6)]
            yield Box.at(starts, sizes, lengths), starts[inner] + sizes[inner] >= lengths[inner]

    # --- what passes through buffers ---

    def _fetch(self, role: Role, ref: TensorRef | None, positions: Array) -> Real:
        """A tile in steps of its scale, through the buffer that the program has for its codes."""
        assert ref is not None
        codes, zero = self.machine.all_codes(ref), self.machine.zero_points.get(ref, 0)
        number = next((i for i, s in enumerate(self.op.stages) if s.role is role and s.ref == ref), None)
        if number is None:
            return codes[positions].astype(np.float64) - zero
        places, inverse = np.unique(positions, return_inverse=True)
        held = self._buffer(number, codes[places])
        return held[inverse].reshape(positions.shape).astype(np.float64) - zero

    def _buffer(self, number: int, codes: Array) -> Array:
        """Copies codes into a buffer and gives back what lies there."""
        stage, key = self.op.stages[number], (self.op.name, number)
        if codes.nbytes > stage.bytes:
            raise InputError(f"{self.op.name}: a tile of {codes.nbytes} bytes passes a buffer of {stage.bytes}")
        address = self.machine.lowered.memory.stages[key]
        turn = self.machine.transfers.get(key, 0)
        self.machine.transfers[key] = turn + 1
        start = address.offset + turn % stage.copies * stage.bytes
        room = self.machine.arenas[address.memory][start : start + codes.nbytes].view(codes.dtype)
        room[...] = codes.ravel()
        return room

    def _scale(self, ref: TensorRef | None) -> float:
        assert ref is not None
        return self.scales[ref]

    # --- arithmetic ---

    def _accumulated(self, box: Box) -> Real:
        key = (box.batch.start, box.groups.start, box.out_channels.start, box.rows.start, box.columns.start)
        before = self.sums.pop(key, None)
        kind = self.work.kind
        if kind is WorkKind.REDUCTION:
            codes = self._fetch(Role.INPUT, self.data, self.data_positions[box.groups, box.in_channels])
            total = reduce_rows(self.node, codes, before)
        elif kind is WorkKind.MATRIX_PRODUCT:
            codes = self._fetch(Role.INPUT, self.data, self.data_positions[box.batch, box.columns, box.in_channels])
            part = products(np.moveaxis(codes, -1, -2)[:, None], self._weight_tile(box))
            total = part if before is None else before + part
        elif kind is WorkKind.POOL:
            total = self._pooled(self._windows(box))
        elif self.phases is not None:
            part = self._phase_by_phase(box, self.phases)
            total = part if before is None else before + part
        else:
            windows = self._windows(box)
            flat = windows.reshape(*windows.shape[:2], -1, windows.shape[-1] * windows.shape[-2])
            part = products(flat, self._weight_tile(box))
            total = part if before is None else before + part
        self.sums[key] = total
        return total

    def _phase_by_phase(self, box: Box, phases: Phases) -> Real:
        """Of a transposed convolution: the part of each phase in the tile is a convolution of stride 1 of its own."""
        parts = []
        for phase, channels in phases.within(box.out_channels, self.work.out_channels):
            taps = phases.taps(phase)
            if not taps:  # a stride over more than the kernel leaves pixels that no input reaches
                counts = [places.stop - places.start for places in (box.batch, box.groups, channels)]
                counts.append((box.rows.stop - box.rows.start) * (box.columns.stop - box.columns.start))
                parts.append(np.zeros(counts))
                continue
            positions = phases.weights(self.weight_positions, self.work.groups, taps)
            positions = positions[box.groups, channels, box.in_channels]
            weights = self._fetch(Role.WEIGHTS, self.weights, positions)
            windows = np.stack([self._shifted(box, shift) for _, shift in taps], axis=3)
            flat = windows.reshape(*windows.shape[:2], -1, windows.shape[-1] * windows.shape[-2])
            parts.append(products(flat, weights.reshape(1, *weights.shape[:2], -1)))
        return np.concatenate(parts, axis=2)

    def _shifted(self, box: Box, shift: tuple[int, int]) -> Real:
        """The input under a tile's results, moved by some positions; outside the image it is 0."""
        ends = []
        for places, by, axis in ((box.rows, shift[0], 3), (box.columns, shift[1], 4)):
            size = self.data_positions.shape[axis]
            start, stop = places.start + by, places.stop + by
            low, high = min(max(start, 0), size), min(max(stop, 0), size)
            before = min(max(-start, 0), stop - start)
            ends.append((slice(low, high), (before, stop - start - before - (high - low))))
        (rows, above), (columns, left) = ends
        positions = self.data_positions[box.batch, box.groups, box.in_channels, rows, columns]
        return np.pad(self._fetch(Role.INPUT, self.data, positions), [(0, 0)] * 3 + [above, left])

    def _weight_tile(self, box: Box) -> Real:
        batch = box.batch if self.weight_positions.shape[0] > 1 else slice(None)
        positions = self.weight_positions[batch, box.groups, box.out_channels, box.in_channels]
        codes = self._fetch(Role.WEIGHTS, self.weights, positions)
        return codes.reshape(*codes.shape[:3], -1)

    def _windows(self, box: Box) -> Real:
        """`[batch, groups, channels, taps, rows, columns]`; padding is 0, and less than anything to a maximum."""
        rows, columns = box.rows, box.columns
        (top, bottom), pad_y = window_index(self.work.y, rows.start, rows.stop - rows.start)
        (left, right), pad_x = window_index(self.work.x, columns.start, columns.stop - columns.start)
        positions = self.data_positions[box.batch, box.groups, box.in_channels, top:bottom, left:right]
        codes = self._fetch(Role.INPUT, self.data, positions)
        outside = -np.inf if self.node.op.startswith(("max_pool", "adaptive_max")) else 0.0
        padded = np.pad(codes, [(0, 0)] * 3 + [pad_y, pad_x], constant_values=outside)
        y, x = self.work.y, self.work.x
        count_y, count_x = rows.stop - rows.start, columns.stop - columns.start
        taps = [
            padded[
                ...,
                j * y.dilation : j * y.dilation + (count_y - 1) * y.stride + 1 : y.stride,
                i * x.dilation : i * x.dilation + (count_x - 1) * x.stride + 1 : x.stride,
            ]
            for j in range(y.kernel)
            for i in range(x.kernel)
        ]
        return np.stack(taps, axis=3)

    def _pooled(self, windows: Real) -> Real:
        maximum = self.node.op.startswith(("max_pool", "adaptive_max"))
        return np.asarray(windows.max(axis=(2, 3)) if maximum else windows.sum(axis=(2, 3)))

    def _finished(self, total: Real, box: Box) -> Real:
        """Real values of finished accumulators, in the shape of the result's tile."""
        scale = self._scale(self.data)
        if self.work.kind is WorkKind.REDUCTION:
            divisor = self.work.in_channels if self.node.op == "mean" else 1
            return (total * scale / divisor).reshape(1, -1, 1, 1, 1)
        rows, columns = box.rows, box.columns
        counts = (rows.stop - rows.start, columns.stop - columns.start)
        if self.work.kind is WorkKind.POOL:
            values = total * scale if "max" in self.node.op else total * scale / self._divisor(box)
            return values[:, :, None]
        values = total * (scale * self._scale(self.weights))
        values = values.reshape(*values.shape[:3], *counts)
        if self.bias is not None:
            bias = self.machine.real(self.bias).ravel()
            copies = self.phases.count if self.phases else 1
            per_channel = np.tile(bias.reshape(self.work.groups, -1), copies)[box.groups, box.out_channels]
            values = values + per_channel[None, :, :, None, None]
        return values

    def _divisor(self, box: Box) -> Real:
        """How many positions each average is over."""
        counts = []
        included = self.node.attributes.get("count_include_pad", True)
        for axis, places in ((self.work.y, box.rows), (self.work.x, box.columns)):
            start = np.arange(places.start, places.stop) * axis.stride - axis.padding
            # Positions of padding count, those that only rounding up brought in do not.
            low, high = (-axis.padding, axis.input + axis.padding) if included else (0, axis.input)
            counts.append(np.minimum(start + axis.kernel, high) - np.maximum(start, low))
        fixed = self.node.attributes.get("divisor_override")
        return np.asarray(fixed if fixed else counts[0][:, None] * counts[1][None, :], dtype=np.float64)

    def _chain(self, nodes: tuple[Node, ...], values: Real | None, box: Box) -> Real:
        """Elementwise operators on a tile."""
        inner = {ref for node in self.op.block.nodes for ref in node.outputs}
        before = {after.name: node for node, after in itertools.pairwise(self.op.block.nodes)}
        for node in nodes:
            if values is not None and node.name in before:
                values = self.machine.looked_up(before[node.name], node, values)
            operands = [
                values if ref in inner and values is not None else self._beside_result(node, ref, box)
                for ref in node.tensors
            ]
            values = elementwise(node, operands)
        assert values is not None
        return values

    def _beside_result(self, node: Node, ref: TensorRef, box: Box) -> Real:
        """An operand at the places of a result's tile."""
        machine = self.machine
        shape = tuple(size or 0 for size in self.graph.tensors[self.result].shape)
        positions = machine.positions(ref)
        if node.op == "batch_norm" and positions.ndim == 1:
            positions = positions.reshape(1, -1, *(1,) * (len(shape) - 2))
        positions = np.broadcast_to(positions, shape)
        form = result_form(self.graph, self.node, self.work, positions, self.image)
        return self._fetch(Role.INPUT, ref, form[_tile(box)]) * self.scales[ref]

    def _store(self, values: Real, box: Box) -> None:
        machine, ref = self.machine, self.result
        codes = machine.coded(ref, values)
        number = next((i for i, s in enumerate(self.op.stages) if s.role is Role.OUTPUT and s.ref == ref), None)
        positions = self.result_positions[_tile(box)]
        held = (
            codes.reshape(positions.shape) if number is None else self._buffer(number, codes).reshape(positions.shape)
        )
        there = positions >= 0  # phases may reach over the end of an image
        machine.codes(ref)[positions[there]] = held[there]


def _tile(box: Box) -> tuple[slice, ...]:
    return box.batch, box.groups, box.out_channels, box.rows, box.columns
