"""An ONNX file as a checked protobuf message: everything behind this border may trust its names and tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from bitwright.quant.errors import InputError
from bitwright.quant.onnx_import.stored_tensor import check_tensor

STANDARD = frozenset({"", "ai.onnx"})

# A protobuf message cannot be larger; weights beyond that are external data.
LARGEST_FILE = 2**31 - 1
# IR version 3 (ONNX 1.0, 2017) is the first with opset imports.
FIRST_IR = 3


def read_model(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file; weights beside it stay there.

    Raises:
        InputError: there is no such file, it is no ONNX model, or one that this release cannot read.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the .onnx file in it")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise InputError(
            f"{path}: {size / 2**30:.1f} GiB; an ONNX file has at most 2 GiB, weights beside it not counted"
        )
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError; its package comes with onnx alone
        raise InputError(f"{path}: not an ONNX model, or a truncated one; export it again ({error})") from error
    if not model.HasField("graph") or not (model.graph.node or model.graph.input or model.graph.output):
        raise InputError(f"{path}: not an ONNX model: it holds no graph")
    _check_texts(model, path)
    _check_versions(model, path)
    for place, tensor in tensors_of(model.graph):
        check_tensor(tensor, f"{path}: {place}", path.parent)
    return model


def _check_texts(model: onnx.ModelProto, path: Path) -> None:
    """Protobuf reads texts that are no UTF-8, gives them as bytes, and stumbles when they are written again."""
    for text in _texts(model):
        if isinstance(text, bytes):
            raise InputError(f"{path}: the name {text[:40]!r} is no UTF-8 text; the file is damaged")


def _texts(model: onnx.ModelProto) -> Iterator[str | bytes]:
    yield model.producer_name
    for graph in _graphs(model.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            yield info.name
            yield from (dim.dim_param for dim in info.type.tensor_type.shape.dim)
        for tensor in graph.initializer:
            yield tensor.name
            yield from (entry.value for entry in tensor.external_data)
        for node in graph.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (attribute.name for attribute in node.attribute)
            yield from (entry.value for entry in node.metadata_props)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _graphs(body)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a checked model uses."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 1)


def _check_versions(model: onnx.ModelProto, path: Path) -> None:
    if not FIRST_IR <= model.ir_version <= onnx.IR_VERSION:
        raise InputError(
            f"{path}: IR version {model.ir_version}; onnx {onnx.__version__} reads {FIRST_IR} to {onnx.IR_VERSION}"
        )
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain in STANDARD else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise InputError(
                f"{path}: domain {entry.domain or 'ai.onnx'!r} is imported as {versions[domain]} and {entry.version}"
            )
    newest = onnx.defs.onnx_opset_version()
    standard = any(node.domain in STANDARD for node in model.graph.node)
    if "" in versions and not 1 <= versions[""] <= newest:
        raise InputError(f"{path}: opset {versions['']}; onnx {onnx.__version__} knows 1 to {newest}")
    if standard and "" not in versions:
        raise InputError(f"{path}: uses standard operators and imports no opset; export it again")


def tensors_of(model: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every tensor of a graph and its bodies, with the place where it stands."""
    for graph in _graphs(model):
        for tensor in graph.initializer:
            yield f"initializer {tensor.name!r}", tensor
        for sparse in graph.sparse_initializer:
            yield f"sparse initializer {sparse.values.name!r}", sparse.values
            yield f"sparse initializer {sparse.values.name!r}, indices", sparse.indices
        for node in graph.node:
            for attribute in node.attribute:
                where = f"node {node.name or node.op_type!r}, attribute {attribute.name!r}"
                for tensor in (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else ())):
                    yield where, tensor
