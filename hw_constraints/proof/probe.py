"""Asks the runtime itself why a layer is not in int8: the layer alone, changed in one property at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitwright.hw_constraints.backends import Backend
from bitwright.hw_constraints.proof.case import CaseModel, LayerCase, Role
from bitwright.hw_constraints.proof.causes import CAUSES
from bitwright.hw_constraints.proof.changes import Change
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph, random_inputs
from bitwright.hw_constraints.proof.trace import trace_layers
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a layer does not run in int8.

    Attributes:
        causes: the names of the causes in `causes`, or one of `not_quantized`, `no_int8_kernel`, `surroundings`,
            `not_probed`, `format_not_executed`.
        found: what was read in the file.
        allowed: with what the runtime was seen to run this layer in int8; empty when nothing helped.
    """

    causes: tuple[str, ...]
    found: str
    allowed: str = ""

    def __str__(self) -> str:
        return f"{self.found}; it runs in int8 with {self.allowed}" if self.allowed else self.found


class Prober:
    """Finds reasons in one runtime; equal cases are asked once."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._answers: dict[tuple[object, ...], bool] = {}
        self.probes = 0

    def reason(self, case: LayerCase) -> Reason:
        """The reason why this layer is not in int8.

        First every property is changed: if that does not help, there is no int8 kernel. Then one at a time; if no
        single one helps, as few of them as suffice.
        """
        if self.runs_in_int8(case):
            return Reason(
                causes=("surroundings",),
                found=f"alone, {self._backend.name} runs it in int8; in this file what stands around it prevents that",
            )
        everything = _all_changes(case, range(len(CAUSES)))
        if not everything or not self.runs_in_int8(everything[-1][1].case):
            return Reason(
                causes=("no_int8_kernel",),
                found=f"{self._backend.name} has no int8 kernel for {case.op}: no change of its quantization helps",
            )
        for index, cause in enumerate(CAUSES):
            change = cause(case)
            if change is not None and self.runs_in_int8(change.case):
                return _reason([(index, change)])
        return _reason(self._fewest(case, [index for index, _ in everything]))

    def _fewest(self, case: LayerCase, indices: list[int]) -> list[tuple[int, Change]]:
        """Leaves out one cause after the other, the rarest first, as long as the rest still helps."""
        for index in reversed(indices):
            rest = [other for other in indices if other != index]
            changes = _all_changes(case, rest)
            if changes and self.runs_in_int8(changes[-1][1].case):
                indices = rest
        return _all_changes(case, indices)

    def runs_in_int8(self, case: LayerCase) -> bool:
        """Whether the runtime's own trace shows an int8 kernel for the layer of this case."""
        key = _signature(case)
        if key not in self._answers:
            self.probes += 1
            self._answers[key] = self._ask(case)
        return self._answers[key]

    def _ask(self, case: LayerCase) -> bool:
        built = CaseModel(case)
        graph = OnnxGraph(built.model, f"probe of {case.op}")
        try:
            trace = trace_layers(graph, self._backend, random_inputs(graph), runs=1)
        except InputError:  # the runtime does not accept such a layer at all
            return False
        layer = trace.layers[built.layer]
        if layer.kernels or layer.folded_into is None:
            return layer.precision == "int8"
        return trace.layers[layer.folded_into].precision == "int8"


def _all_changes(case: LayerCase, indices: Sequence[int]) -> list[tuple[int, Change]]:
    """Changes made one upon the other; the last one carries the case with all of them."""
    made = []
    for index in indices:
        change = CAUSES[index](case)
        if change is not None:
            made.append((index, change))
            case = change.case
    return made


def _reason(changes: Sequence[tuple[int, Change]]) -> Reason:
    return Reason(
        causes=tuple(CAUSES[index].__name__ for index, _ in changes),
        found="; ".join(change.found for _, change in changes),
        allowed="; ".join(change.allowed for _, change in changes),
    )


def _signature(case: LayerCase) -> tuple[object, ...]:
    """What a runtime's choice of kernel may hang on; sizes of pictures and channel counts are left out.

    Scales enter by what they imply: each cause that applies to the case.
    """
    formats = tuple(
        (
            operand.role,
            len(operand.shape),
            operand.shape[2:] if operand.role is Role.WEIGHT else None,
            operand.shape[1] == 1 if operand.role is Role.WEIGHT and len(operand.shape) > 1 else None,
            operand.stored_float,
            operand.codes and (operand.codes.dtype, operand.codes.axis, operand.codes.readers > 1),
            operand.codes and bool(np.any(operand.codes.zero_point)),
        )
        for operand in case.operands
    )
    output = case.output and (case.output.dtype, int(case.output.zero_point.flat[0]), case.output.readers > 1)
    attributes = tuple(attribute.SerializeToString() for attribute in case.attributes)
    applying = tuple(cause(case) is not None for cause in CAUSES)
    followers = tuple(follower.op for follower in case.followers)
    return (case.op, attributes, case.opset, formats, followers, output, applying, case.float_readers[:1])
