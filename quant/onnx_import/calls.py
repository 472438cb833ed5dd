"""A network on its way from ONNX to ATen: operator calls on named values, and what a reader needs to write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, NodeProto, helper

from bitwright.quant.onnx_import.qparams import ImportedQParams
from bitwright.quant.onnx_import.values import Shape, Values, ValueType

Array = npt.NDArray[Any]


class Misfit(ValueError):
    """The parts of a node do not fit together, or say what ATen cannot: the node is kept as ONNX has it."""


@dataclass(eq=False)
class Call:
    """One call of an ATen operator, or of an ONNX operator that has no such name.

    Attributes:
        op: ATen's base name, or ONNX's own (`Loop`, `com.example::Voxelize`).
        inputs: names of values in the order of ATen's schema; None for a missing optional tensor.
        outputs: names of the results.
        attributes: the other arguments by ATen's names.
        origin: the ONNX node that it was read from.
    """

    op: str
    inputs: list[str | None]
    outputs: list[str]
    attributes: dict[str, Any]
    origin: NodeProto

    @property
    def operands(self) -> list[str]:
        """Its inputs without the missing ones."""
        return [name for name in self.inputs if name is not None]


@dataclass(eq=False)
class Draft:
    """What was read so far.

    Attributes:
        values: types and constants.
        is_own: whether our exporter wrote the file: its names then say what is a tensor of the network and what only
            exists in ONNX (those have a `/`).
        calls: in an order in which they can run.
        aliases: values that are other values under another name.
        qparams: how values are coded, for those that are.
        dequantized: constants that stand in the file as codes, and the name of these.
        dynamic_scales: scales that are computed from the data when the network runs, and the constants in them.
        kept: why nodes were kept as ONNX has them, by their first result.
    """

    values: Values
    is_own: bool = False
    calls: list[Call] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    qparams: dict[str, ImportedQParams] = field(default_factory=dict)
    dequantized: dict[str, str] = field(default_factory=dict)
    dynamic_scales: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """The value that a name stands for."""
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def is_inner(self, name: str) -> bool:
        """Whether a value surely is no tensor of the network that was exported."""
        return self.is_own and "/" in name

    def scalar(self, name: str) -> int | float | bool | None:
        """The number that a constant without dimensions is; None for tensors."""
        kind = self.values.types.get(name)
        if kind is None or kind.shape != () or (self.is_own and not self.is_inner(name)):
            return None
        content = self.values.content(name)
        return None if content is None else content.item()

    def parameter(self, name: str) -> str | None:
        """A weight or bias; None for the ones and zeros that ONNX demands where the network has none."""
        return None if self.is_inner(name) else name

    def transposed(self, name: str) -> str:
        """A constant matrix with its dimensions changed, under a name of its own; its codes' scales go with it."""
        result = f"{name}#transposed"
        if result not in self.values.types:
            kind, load = self.values.types[name], self.values.loaders[name]
            turned = ValueType(kind.shape[::-1], kind.dtype)
            self.values.add_constant(result, turned, lambda: np.ascontiguousarray(load().T))
            known = self.qparams.get(name)
            if known is not None:
                self.qparams[result] = known.transposed()
        return result

    def unshaped(self, name: str) -> str:
        """The vector that a constant is, before it was given ones around its dimension."""
        source = self.values.reshaped.get(name, name)
        return source if len(self.values.types[source].shape) == 1 else name


class Reader:
    """One ONNX node as its reader function sees it; operands are resolved, attributes typed."""

    def __init__(self, draft: Draft, node: NodeProto) -> None:
        self.draft = draft
        self.node = node
        self.values = draft.values
        self.inputs = [draft.resolve(name) if name else "" for name in node.input]
        self._attributes = {attribute.name: attribute for attribute in node.attribute}

    # --- operands ---

    def input(self, position: int) -> str:
        """An operand that must be there.

        Raises:
            Misfit: it is missing.
        """
        name = self.optional(position)
        if name is None:
            raise Misfit(f"operand {position} is missing")
        return name

    def optional(self, position: int) -> str | None:
        """An operand, None when it is missing."""
        return self.inputs[position] or None if position < len(self.inputs) else None

    def shape(self, name: str) -> Shape:
        """The shape of a value."""
        return self.values.types[name].shape

    def rank(self, name: str) -> int:
        """The rank of a value whose shape is known at least that far.

        Raises:
            Misfit: it is not.
        """
        kind = self.values.types[name]
        if kind.shape == (None,):
            raise Misfit(f"the rank of {name!r} is not known")
        return len(kind.shape)

    def static(self, name: str) -> tuple[int, ...]:
        """The shape of a value without open dimensions.

        Raises:
            Misfit: it has some.
        """
        shape = self.shape(name)
        if None in shape:
            raise Misfit(f"{name!r} has the open shape {shape}")
        return tuple(size for size in shape if size is not None)

    def dtype(self, name: str) -> str:
        """The element type of a value."""
        return self.values.types[name].dtype

    def array(self, position: int) -> Array | None:
        """The content of a small constant operand; None when the operand is missing.

        Raises:
            Misfit: it is there and not known.
        """
        name = self.optional(position)
        if name is None:
            return None
        content = self.values.content(name)
        if content is None:
            raise Misfit(f"operand {position} is computed when the network runs")
        return content

    def ints(self, position: int) -> list[int] | None:
        """A small constant operand as whole numbers; None when it is missing."""
        content = self.array(position)
        return None if content is None else [int(number) for number in content.reshape(-1)]

    def number(self, position: int) -> int | float | bool | None:
        """A constant operand of one element as a Python number; None for anything else."""
        name = self.optional(position)
        content = self.values.content(name) if name else None
        return content.reshape(-1)[0].item() if content is not None and content.size == 1 else None

    # --- attributes ---

    def given(self, name: str) -> bool:
        """Whether the file sets an attribute."""
        return name in self._attributes

    def integer(self, name: str, default: int) -> int:
        """A whole number."""
        return int(self._typed(name, AttributeProto.INT, default))

    def real(self, name: str, default: float) -> float:
        """A number."""
        return float(self._typed(name, AttributeProto.FLOAT, default))

    def text(self, name: str, default: str) -> str:
        """A string."""
        value = self._typed(name, AttributeProto.STRING, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """A list of whole numbers.

        Raises:
            Misfit: it is not set and has no default.
        """
        value = self._typed(name, AttributeProto.INTS, default)
        if value is None:
            raise Misfit(f"attribute {name!r} is missing")
        return tuple(int(number) for number in value)

    def _typed(self, name: str, kind: int, default: Any) -> Any:
        attribute = self._attributes.get(name)
        if attribute is None:
            return default
        if attribute.type != kind:
            raise Misfit(f"attribute {name!r} has another type than its operator's")
        return helper.get_attribute_value(attribute)

    # --- results ---

    def emit(
        self, op: str, inputs: Sequence[str | None], outputs: Sequence[str] | None = None, /, **attributes: Any
    ) -> str:
        """Writes one call; without `outputs` it makes the node's own results. Returns its first result."""
        made = list(outputs) if outputs is not None else [name for name in self.node.output if name]
        self.draft.calls.append(Call(op, list(inputs), made, attributes, self.node))
        return made[0] if made else ""

    def inner(self, suffix: str, shape: Shape, dtype: str) -> str:
        """A new value inside the node, for operators that are several calls."""
        name = f"{self.node.output[0]}#{suffix}"
        self.values.types[name] = ValueType(shape, dtype)
        return name

    def constant(self, suffix: str, array: Array) -> str:
        """A new constant inside the node."""
        name = f"{self.node.output[0]}#{suffix}"
        self.values.add_constant(name, ValueType(array.shape, str(array.dtype)), lambda: array)
        return name

    def alias(self, source: str, output: int = 0) -> None:
        """The node changes nothing: its result is one of its operands."""
        self.draft.aliases[self.node.output[output]] = source


def require(holds: bool, why: str) -> None:
    """Stops a reader whose node does not fit together.

    Raises:
        Misfit: `holds` is false.
    """
    if not holds:
        raise Misfit(why)
