"""An ONNX graph without its QuantizeLinear and DequantizeLinear: operators, some of whose tensors are codes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from onnx import NodeProto

from bitwright.hw_constraints.kernels.kernel import Shape
from bitwright.hw_constraints.proof.onnx_graph import DEQUANTIZE, QUANTIZE, OnnxGraph
from bitwright.quant.errors import InputError

_NOTHING = frozenset({"Identity", "Dropout", "Constant"})


@dataclass(frozen=True, kw_only=True)
class Operand:
    """What an operator reads.

    Attributes:
        value: the tensor, by the name that its maker gave it.
        coded: whether it is read through codes.
        live: whether it depends on the network's inputs; else it stands in the file.
    """

    value: str
    coded: bool
    live: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One operator.

    Attributes:
        node: as in the file.
        operands: by position; None where an optional one is missing.
    """

    node: NodeProto
    operands: tuple[Operand | None, ...]

    @property
    def op(self) -> str:
        """ONNX's type."""
        return str(self.node.op_type)

    @property
    def live(self) -> tuple[Operand, ...]:
        """The operands that depend on the network's inputs."""
        return tuple(operand for operand in self.operands if operand is not None and operand.live)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Its results."""
        return tuple(filter(None, self.node.output))


class CodedGraph:
    """The operators of a file in an order in which they can run."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        live = graph.computed_from_inputs
        self.calls = tuple(
            Call(node=node, operands=tuple(self._operand(value, value in live) for value in node.input))
            for node in graph.nodes
            if node.op_type not in _NOTHING | {QUANTIZE, DEQUANTIZE} and any(value in live for value in node.output)
        )
        self.maker = {value: call for call in self.calls for value in call.outputs}
        # Results of the graph: the tensor, and whether it leaves through codes.
        self.results = tuple(self._operand(value, True) for value in graph.outputs)

    def _operand(self, value: str, live: bool) -> Operand | None:
        if not value:
            return None
        coded = False
        while True:
            node = self.graph.maker(value)
            if node is None or node.op_type not in _NOTHING | {QUANTIZE, DEQUANTIZE} or not node.input:
                return Operand(value=value, coded=coded, live=live)
            coded = coded or node.op_type in (QUANTIZE, DEQUANTIZE)
            value = node.input[0]

    @cached_property
    def readers(self) -> dict[str, list[Call]]:
        """Who reads each tensor, each reader once."""
        table: dict[str, list[Call]] = {}
        for call in self.calls:
            for value in dict.fromkeys(operand.value for operand in call.live):
                table.setdefault(value, []).append(call)
        return table

    @cached_property
    def coded(self) -> frozenset[str]:
        """Tensors that some operator, or whoever takes the results, reads through codes."""
        read = [operand for call in self.calls for operand in call.live] + [one for one in self.results if one]
        return frozenset(operand.value for operand in read if operand.coded)

    @cached_property
    def _quantizers(self) -> dict[str, NodeProto]:
        """For each tensor in codes the QuantizeLinear that makes them; a DequantizeLinear where they come in ready."""
        found: dict[str, NodeProto] = {}
        for node in self.graph.nodes:
            if node.op_type in (QUANTIZE, DEQUANTIZE):
                root = self._operand(node.input[0], True)
                if root is not None and (node.op_type == QUANTIZE or root.value not in found):
                    found.setdefault(root.value, node)
        return found

    def qparams(self, value: str) -> tuple[float, int] | None:
        """Scale and zero point of a tensor in codes; None where they are not one for the whole tensor."""
        node = self._quantizers.get(value)
        if node is None:
            return None
        scale = self.graph.constant(node.input[1])
        zero = self.graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros(1, np.int8)
        if scale is None or zero is None or scale.size != 1:
            return None
        return float(scale.flat[0]), int(zero.flat[0])

    def is_result(self, value: str) -> bool:
        """Whether a tensor leaves the network."""
        return any(result is not None and result.value == value for result in self.results)

    def sole_reader(self, value: str) -> Call | None:
        """The only operator that reads a tensor; None when there are several or it leaves the network."""
        readers = self.readers.get(value, [])
        return readers[0] if len(readers) == 1 and not self.is_result(value) else None

    def shape(self, value: str) -> Shape:
        """Its dimensions; a first one that is not static is 1.

        Raises:
            InputError: another one is not static, or nothing is known.
        """
        shape = self.graph.shape(value)
        if shape is None or None in shape[1:]:
            raise InputError(f"{self.graph.label}: value {value!r} has shape {shape}; its latency needs static sizes")
        return tuple(1 if dim is None else dim for dim in shape)
