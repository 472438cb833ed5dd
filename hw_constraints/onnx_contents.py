"""What of an ONNX file decides how a runtime must open it.

It is read from the file's bytes (protobuf's wire format), since a device has a runtime but no package `onnx`. Python
3.8's standard library, like all that travels to devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Fields of onnx.proto3: ModelProto.graph; GraphProto.node, .initializer; NodeProto.input, .output, .op_type,
# .attribute; AttributeProto.name, .i; TensorProto.data_type, .name.
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_INPUT, _OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER = 1, 3
_DATA_TYPE, _TENSOR_NAME = 2, 8
NARROW = frozenset((21, 22, 23, 25, 26))  # TensorProto.UINT4, INT4, FLOAT4E2M1, UINT2, INT2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class Contents(NamedTuple):
    """What of a model decides how it must be opened; element types by their numbers in TensorProto.

    `stored` are those of its initializers, `written` those that its QuantizeLinear nodes write; `coded_weights` says
    whether a MatMul multiplies weights that are stored as codes with activations that are in none, or codes of four
    bits or two with any: runtimes fuse the weights with the product then.
    """

    stored: frozenset[int] = frozenset()
    written: frozenset[int] = frozenset()
    coded_weights: bool = False


def contents_of(artifact: Path | str | bytes) -> Contents:
    """What is in a file, or in the bytes of one; nothing for what is no ONNX model, which the runtime will refuse."""
    try:
        return _contents(memoryview(artifact if isinstance(artifact, bytes) else Path(artifact).read_bytes()))
    except (ValueError, IndexError, OSError, UnicodeDecodeError, TypeError):  # the last: a number where bytes belong
        return Contents()


def _contents(model: memoryview) -> Contents:
    types: dict[str, int] = {}
    nodes: list[_Node] = []
    for graph in _messages(model, _GRAPH):
        for number, value in _fields(graph):
            if number == _NODE:
                nodes.append(_node(value))
            elif number == _INITIALIZER:
                named = dict(_fields(value, only=(_DATA_TYPE, _TENSOR_NAME)))
                types[str(named.get(_TENSOR_NAME, b""), "utf-8")] = int(named.get(_DATA_TYPE, 0))
    written: set[int] = set()
    coded: dict[str, int] = {}
    dequantized: set[str] = set()
    for node in nodes:
        if node.op == "QuantizeLinear":
            written.update(types[name] for name in node.inputs[2:] if name in types)
            written.update(node.output_types)
        elif node.op == "DequantizeLinear" and node.inputs[0] in types:
            coded.update(dict.fromkeys(node.outputs, types[node.inputs[0]]))
        elif node.op == "DequantizeLinear":
            dequantized.update(node.outputs)
    products = [node.inputs for node in nodes if node.op == "MatMul" and node.inputs[1] in coded]
    alone = any(activations not in dequantized or coded[weights] in NARROW for activations, weights in products)
    return Contents(frozenset(types.values()), frozenset(written), alone)


class _Node(NamedTuple):
    op: str
    inputs: list[str]
    outputs: list[str]
    output_types: list[int]


def _node(message: memoryview) -> _Node:
    node = _Node("", [], [], [])
    for number, value in _fields(message):
        if number == _INPUT:
            node.inputs.append(str(value, "utf-8"))
        elif number == _OUTPUT:
            node.outputs.append(str(value, "utf-8"))
        elif number == _OP_TYPE:
            node = node._replace(op=str(value, "utf-8"))
        elif number == _ATTRIBUTE:
            named = dict(_fields(value, only=(_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER)))
            if bytes(named.get(_ATTRIBUTE_NAME, b"")) == b"output_dtype":
                node.output_types.append(int(named.get(_ATTRIBUTE_INTEGER, 0)))
    return node


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for number, value in _fields(message, only=(wanted,)))


def _fields(message: memoryview, only: tuple[int, ...] = ()) -> Iterator[tuple[int, Any]]:
    """The fields of a message: numbers as they are, everything of a length as a view of its bytes.

    Raises:
        ValueError: it is no such message.
        IndexError: it ends in the middle of one.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire in (_BYTES, _FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
            if wire == _BYTES:
                size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire}")
        if at > end:
            raise IndexError("cut short")
        if not only or number in only:
            yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
