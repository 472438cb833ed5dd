"""One ONNX node into the draft: a constant, calls of ATen's operators, or the node itself where neither is possible."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper

from bitwright.quant.onnx_import.calls import Call, Draft, Misfit, Reader
from bitwright.quant.onnx_import.readers.registry import READERS
from bitwright.quant.onnx_import.reading import STANDARD
from bitwright.quant.onnx_import.structure import bodies, outer_values

for _module in ("arithmetic", "codes", "images", "layers", "pooling", "shapes"):
    importlib.import_module(f"bitwright.quant.onnx_import.readers.{_module}")


def read_node(draft: Draft, node: NodeProto) -> None:
    """Reads one node; one whose parts do not fit together, or that ATen cannot say, is kept as it stands."""
    inputs = [draft.resolve(name) if name else "" for name in node.input]
    _note_constant(draft, node)
    if node.output and node.output[0] in draft.values.loaders:
        return
    draft.values.infer(node, inputs)
    if draft.values.fold(node, inputs):
        return
    standard = node.domain in STANDARD
    read = READERS.get(node.op_type if standard else f"{node.domain}::{node.op_type}")
    before = len(draft.calls)
    reason = "" if standard else f"domain {node.domain!r}"
    if read is not None and any(node.output):
        try:
            read(Reader(draft, node))
            return
        except Misfit as misfit:
            reason = str(misfit)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # A file may say anything; whatever a reader stumbles over, the node itself is still there.
            reason = f"its parts do not fit together ({type(error).__name__}: {error})"
        del draft.calls[before:]
    _keep(draft, node, inputs, reason)


def _note_constant(draft: Draft, node: NodeProto) -> None:
    if node.op_type != "Constant" or node.domain not in STANDARD or len(node.attribute) != 1 or not node.output:
        return
    attribute = node.attribute[0]
    if attribute.name == "value":
        draft.values.add_tensor(node.output[0], attribute.t)
        return
    kinds = {"value_int": "int64", "value_ints": "int64", "value_float": "float32", "value_floats": "float32"}
    if attribute.name in kinds:
        value = (
            attribute.i if attribute.name == "value_int" else attribute.f if attribute.name == "value_float" else None
        )
        numbers = value if value is not None else list(attribute.ints or attribute.floats)
        draft.values.add_array(node.output[0], np.asarray(numbers, kinds[attribute.name]))


def _keep(draft: Draft, node: NodeProto, inputs: list[str], reason: str) -> None:
    """A node with its ONNX name, its attributes and everything that it reads, its bodies included."""
    op = node.op_type if node.domain in STANDARD else f"{node.domain}::{node.op_type}"
    outer = [draft.resolve(name) for name in outer_values(node)]
    attributes = {
        attribute.name: _plain(helper.get_attribute_value(attribute))
        for attribute in node.attribute
        if attribute.type in _PLAIN_ATTRIBUTES
    }
    if bodies(node):
        attributes["bodies"] = len(bodies(node))
        reason = "which of its graphs runs, and how often, is decided while it runs"
    outputs = [name for name in node.output if name]
    for name in outputs:
        draft.values.loaders.pop(name, None)
    known = [name or None for name in inputs] + [name for name in outer if name not in inputs]
    draft.calls.append(Call(op, known, outputs, attributes, node))
    if outputs:
        draft.kept[outputs[0]] = reason or "no operator of ATen does this"


_PLAIN_ATTRIBUTES = frozenset(
    {
        *(AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.FLOATS),
        *(AttributeProto.STRING, AttributeProto.STRINGS),
    }
)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
