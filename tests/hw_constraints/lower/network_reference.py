"""The network as a whole, block by block, with torch's own operators in float64: what the interpreter has to equal.

Sums of products of codes are whole numbers that float64 holds exactly. Scales are chosen on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from bitwright.hw_constraints.lower.program import Block, Program
from bitwright.quant.graph import Node, TensorRef

Codes = dict[TensorRef, np.ndarray]
_LISTS = ("cat", "stack")
# Half of the largest value would lie right between two codes, where the last bit of a float64 decides.
NO_TIES = 1.000271828
# Which operands are indices.
_PLACES = {"index_select": (1,), "gather": (1,), "embedding": (1,), "scatter": (1,), "index": (1, 2)}


class Reference:
    """Runs the fused, untiled program; `scales` and `codes` hold every tensor afterwards."""

    def __init__(
        self, program: Program, constants: Callable[[TensorRef], np.ndarray], *, zero_points: bool = False
    ) -> None:
        self.program, self.graph, self.constants, self.with_zeros = program, program.graph, constants, zero_points
        self.scales: dict[TensorRef, float] = {}
        self.zero_points: dict[TensorRef, int] = {}
        self.codes: Codes = {}

    def run(self, inputs: Mapping[TensorRef, np.ndarray]) -> Codes:
        for ref, codes in inputs.items():
            self.codes[ref], self.scales[ref] = codes, 2.0**-6
            if self.with_zeros and self.program.bits(ref) == 8:
                self.zero_points[ref] = -37
        for block in self.program.blocks:
            self._resolve(block)
            self._block(block)
        for ref in self.graph.outputs:
            self._view(ref)
        return {ref: self.codes[ref] for ref in self.graph.outputs}

    def _resolve(self, block: Block) -> None:
        for ref in block.reads:
            self._view(ref)
        for ref in block.constants:
            self.codes[ref] = self.constants(ref)
            self.scales.setdefault(ref, 2.0**-7)

    def _view(self, ref: TensorRef) -> None:
        if ref not in self.codes:
            source = self.program.views[ref]
            self._view(source)
            values = self.codes[source]
            maker = self.graph.producers[ref]
            if maker.op in ("permute", "transpose"):
                values = torch.from_numpy(values).permute(_order(maker, values.ndim)).numpy()
            shape = tuple(size or 0 for size in self.graph.tensors[ref].shape)
            self.codes[ref] = np.ascontiguousarray(values).reshape(shape)
            self._as(ref, source)

    def _as(self, ref: TensorRef, source: TensorRef) -> None:
        self.scales[ref] = self.scales[source]
        if source in self.zero_points:
            self.zero_points[ref] = self.zero_points[source]

    def _block(self, block: Block) -> None:
        if not block.nodes:
            self.codes[block.writes[0]] = self.codes[block.reads[0]]
            self._as(block.writes[0], block.reads[0])
            return
        values: dict[TensorRef, torch.Tensor] = {}
        tables = self.program.target.operators.table_lookups
        for node in block.nodes:
            if node is not block.nodes[0] and tables is not None and node.op in tables.of:
                ref = node.tensors[0]  # a table reads codes, which were never written
                self._code(ref, values[ref], block)
                values[ref] = self._real(ref)
            results = self._node(node, values)
            values.update(zip(node.outputs, results, strict=False))
        for ref in block.writes:
            self._code(ref, values[ref], block)

    def _code(self, ref: TensorRef, values: torch.Tensor, block: Block) -> None:
        bits = self.program.bits(ref)
        top = 2.0 ** (min(bits, 31) - 1) - 1
        real = np.nan_to_num(values.numpy(), posinf=top, neginf=-top)
        single = len(block.reads) == 1 and block.op in ("max_pool2d", "max_pool1d", "permute", "transpose", "slice")
        if single:
            self._as(ref, block.reads[0])
        elif self.with_zeros and bits == 8:
            low, high = min(real.min(), 0.0), max(real.max(), 1e-6)
            self.scales[ref] = (high - low) / 255 * NO_TIES
            self.zero_points[ref] = int(np.rint(-128 - low / self.scales[ref]))
        else:
            self.scales[ref] = max(np.abs(real).max(), 1e-6) / min(top, 2**20) * NO_TIES
        zero, bottom = self.zero_points.get(ref, 0), -top - 1 if ref in self.zero_points else -top
        codes = np.clip(np.rint(real / self.scales[ref]) + zero, bottom, top)
        self.codes[ref] = codes.astype({8: np.int8, 16: np.int16}.get(bits, np.int32))

    def _node(self, node: Node, values: Mapping[TensorRef, torch.Tensor]) -> list[torch.Tensor]:
        if self.graph.is_layer(node):
            return [self._layer(node)]
        places = _PLACES.get(node.op, ())
        operands = [
            values[ref] if ref in values else torch.from_numpy(self.codes[ref]) if i in places else self._real(ref)
            for i, ref in enumerate(node.tensors)
        ]
        return _called(node, operands)

    def _real(self, ref: TensorRef) -> torch.Tensor:
        return torch.from_numpy(self._steps(ref)) * self.scales[ref]

    def _steps(self, ref: TensorRef) -> np.ndarray:
        return self.codes[ref].astype(np.float64) - self.zero_points.get(ref, 0)

    def _layer(self, node: Node) -> torch.Tensor:
        data, weight, bias = self.graph.layer_positions(node)
        first, second = node.inputs[data], node.inputs[weight]
        scale = self.scales[first] * self.scales[second]
        pair = {p: torch.from_numpy(self._steps(node.inputs[p])) for p in (data, weight)}
        operands = [pair[min(pair)], pair[max(pair)]]
        op = {"addmm": "mm", "baddbmm": "bmm"}.get(node.op, node.op)
        attributes = {k: v for k, v in node.attributes.items() if k not in ("alpha", "beta")}
        sums = _aten(op)(*operands, **attributes)
        assert torch.equal(sums, sums.round())
        real = sums * scale
        third = node.inputs[bias] if bias < len(node.inputs) else None
        if third is not None:
            self.scales[third] = scale
            added = self._real(third)
            real = real + (
                added if node.op in ("linear", "addmm", "baddbmm") else added.view(1, -1, *(1,) * (real.ndim - 2))
            )
        return real


def _called(node: Node, operands: list[torch.Tensor]) -> list[torch.Tensor]:
    attributes: dict[str, Any] = dict(node.attributes)
    if node.op in ("batch_norm",):
        x, weight, bias, mean, var = operands
        return [torch.nn.functional.batch_norm(x, mean, var.abs(), weight, bias, eps=attributes["eps"])]
    if node.op == "gelu":
        return [torch.nn.functional.gelu(operands[0])]
    if node.op == "upsample_nearest2d":
        factor = attributes["scale_factors"]
        return [torch.nn.functional.interpolate(operands[0], scale_factor=tuple(factor))]
    if node.op in ("maximum", "minimum") and len(operands) == 1:
        operands.append(torch.tensor(attributes.pop("other"), dtype=torch.float64))
    if node.op in ("reshape", "view"):
        return [operands[0].reshape(attributes.get("shape") or attributes["size"])]
    if node.op == "softmax":
        return [operands[0].softmax(attributes["dim"])]
    if node.op == "upsample_bilinear2d":
        size, corners = attributes["output_size"], attributes["align_corners"]
        return [torch.nn.functional.interpolate(operands[0], size=size, mode="bilinear", align_corners=corners)]
    if node.op in ("index_select", "gather", "scatter"):
        return [_aten(node.op)(operands[0], attributes["dim"], *operands[1:])]
    if node.op == "index":
        given = iter(operands[1:])
        return [operands[0][tuple(slice(None) if ref is None else next(given) for ref in node.inputs[1:])]]
    if node.op == "repeat":
        return [operands[0].repeat(attributes["repeats"])]
    if node.op in ("adaptive_avg_pool2d",):
        return [torch.nn.functional.adaptive_avg_pool2d(operands[0], attributes["output_size"])]
    result = _aten(node.op)(operands, **attributes) if node.op in _LISTS else _aten(node.op)(*operands, **attributes)
    return list(result) if isinstance(result, list | tuple) else [result]


def _aten(op: str) -> Callable[..., Any]:
    return getattr(torch.ops.aten, op)


def _order(node: Node, rank: int) -> list[int]:
    if node.op == "permute":
        return [axis % rank for axis in node.attributes["dims"]]
    order = list(range(rank))
    a, b = node.attributes["dim0"] % rank, node.attributes["dim1"] % rank
    order[a], order[b] = order[b], order[a]
    return order
