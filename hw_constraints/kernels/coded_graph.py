"""An ONNX graph without its QuantizeLinear and DequantizeLinear: operators, some of whose tensors are codes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from onnx import NodeProto

from bitwright.hw_constraints.kernels.kernel import Shape
from bitwright.hw_constraints.proof.onnx_graph import DEQUANTIZE, QUANTIZE, OnnxGraph
from bitwright.quant.errors import InputError

_NOTHING = frozenset({"Identity", "Dropout", "Constant"})
_KEEPS_CODES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})  # moved as they are, codes or not


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

    def text(self, name: str) -> str:
        """An attribute that is a word; empty where it is not given."""
        return next((each.s.decode() for each in self.node.attribute if each.name == name), "")

    @property
    def live(self) -> tuple[Operand, ...]:
        """The operands that depend on the network's inputs."""
        return tuple(operand for operand in self.operands if operand is not None and operand.live)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Its results."""
        return tuple(filter(None, self.node.output))


class CodedGraph:
    """The operators of a file in an order in which they can run.

    Args:
        graph: the file's.
        quantizes_before: operators in front of which the runtime puts what quantizes their result, so that they read
            codes where the file has real values.
    """

    def __init__(self, graph: OnnxGraph, *, quantizes_before: frozenset[str] = frozenset()) -> None:
        self.graph = graph
        live = graph.computed_from_inputs
        written = tuple(
            Call(node=node, operands=tuple(self._operand(value, value in live) for value in node.input))
            for node in graph.nodes
            if node.op_type not in _NOTHING | {QUANTIZE, DEQUANTIZE} and any(value in live for value in node.output)
        )
        # Results of the graph: the tensor, and whether it leaves through codes.
        self.results = tuple(self._operand(value, True) for value in graph.outputs)
        self._same_codes: dict[str, str] = {}  # tensors that views make of tensors in codes, and the other way round
        self.quantized_ahead: set[str] = set()  # results whose codes the makers of what they are made of write
        self.calls = self._ahead_of(quantizes_before, self._through_views(written))
        self.maker = {value: call for call in self.calls for value in call.outputs}

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

    def _through_views(self, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        """Views keep codes: what is read behind one was in codes before it, what is quantized behind one, too."""
        readers = Counter(operand.value for call in calls for operand in call.live)
        results = {result.value for result in self.results if result}
        coded = {operand.value for call in calls for operand in call.live if operand.coded}
        coded |= {result.value for result in self.results if result and result.coded}
        views = [call for call in calls if call.op in _KEEPS_CODES and call.live]
        for call in reversed(views):
            source, made = call.live[0].value, call.outputs[0]
            if made in coded and source not in coded and readers[source] == 1 and source not in results:
                coded.add(source)
                self._same_codes[source] = made
        for call in views:
            source, made = call.live[0].value, call.outputs[0]
            if (call.live[0].coded or source in self._same_codes) and made not in coded and made not in results:
                coded.add(made)
                self._same_codes[made] = source
        return tuple(
            replace(
                call,
                operands=tuple(
                    replace(one, coded=True) if one is not None and one.value in self._same_codes else one
                    for one in call.operands
                ),
            )
            for call in calls
        )

    def _ahead_of(self, ops: frozenset[str], calls: tuple[Call, ...]) -> tuple[Call, ...]:
        """Lets these operators read codes, in the codes of their results, where all who read the results do."""
        uses = [operand for call in calls for operand in call.live] + [one for one in self.results if one]
        real = {use.value for use in uses if not use.coded}
        found = []
        for call in calls:
            made = call.outputs[0] if call.outputs else ""
            if call.op.lower() in ops and made not in real and any(one.coded for one in call.live):
                self.quantized_ahead.add(made)
                self._same_codes |= {one.value: made for one in call.live if not one.coded}
                operands = (replace(one, coded=True) if one is not None and one.live else one for one in call.operands)
                call = replace(call, operands=tuple(operands))
            found.append(call)
        return tuple(found)

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
        seen = {value}
        while value not in self._quantizers and self._same_codes.get(value, value) not in seen:
            value = self._same_codes[value]
            seen.add(value)
        node = self._quantizers.get(value)
        if node is None:
            return None
        scale = self.graph.constant(node.input[1])
        zero = self.graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros(1, np.int8)
        if scale is None or zero is None or scale.size != 1:
            return None
        return float(scale.flat[0]), int(zero.flat[0])

    def code_range(self, value: str) -> tuple[int, int]:
        """The least and the greatest code of a tensor in codes."""
        node = self._quantizers.get(value)
        named = node.input[2] if node is not None and len(node.input) > 2 else ""
        limits = np.iinfo(np.dtype((self.graph.dtype(named) if named else "") or "uint8"))
        return int(limits.min), int(limits.max)

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
