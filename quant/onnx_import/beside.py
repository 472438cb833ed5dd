"""Files beside a float ONNX file that say how its tensors are coded, and what follows for the import.

    NAME.encodings                            AIMET, Qualcomm AI Engine Direct
    NAME.calib.cache + NAME.precisions.json   TensorRT, implicit quantization

A file that has QuantizeLinear says itself how its tensors are coded; nothing beside it is read then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto

from bitwright.quant.errors import InputError
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.onnx_import import calibration_cache, encodings
from bitwright.quant.onnx_import.calls import Draft
from bitwright.quant.onnx_import.coding import Codings
from bitwright.quant.onnx_import.implicit import codings_of_cache
from bitwright.quant.onnx_import.qparams import ImportedQParams, qparams_of
from bitwright.quant.onnx_import.spelling import PERMUTATIONS, RESHAPES, SPLITS
from bitwright.quant.onnx_import.values import Values

_MOVES = RESHAPES | PERMUTATIONS | SPLITS
_OF_CODES = ("QuantizeLinear", "DequantizeLinear", "QLinear", "Integer")


def codings_beside(path: Path, model: ModelProto, values: Values) -> Codings | None:
    """What the file beside an ONNX file says; None where there is none, or the file has codes of its own.

    Raises:
        InputError: it is damaged, belongs to another network, or there are two.
    """
    if any(part in node.op_type for node in model.graph.node for part in _OF_CODES):
        return None
    present = _present(path)
    if len(present) > 1:
        names = " and ".join(file.name for file in present.values())
        raise InputError(f"{path}: {names} both say how its tensors are coded; remove one of them")
    if not present:
        return None
    if encodings.SUFFIX in present:
        found = encodings.read_encodings(present[encodings.SUFFIX])
    else:
        found = codings_of_cache(present[calibration_cache.SUFFIX], model, values)
    inputs = (item.name for item in model.graph.input)
    constants = (tensor.name for tensor in model.graph.initializer)
    found.check_names([*inputs, *constants, *(name for node in model.graph.node for name in node.output)])
    return found


def has_codes_beside(path: Path) -> bool:
    """Whether a file beside an ONNX file may say how its tensors are coded."""
    return bool(_present(path))


def _present(path: Path) -> dict[str, Path]:
    files = {suffix: path.with_suffix(suffix) for suffix in (encodings.SUFFIX, calibration_cache.SUFFIX)}
    return {suffix: file for suffix, file in files.items() if file.is_file()}


def note_constants(draft: Draft, codings: Codings, model: ModelProto) -> None:
    """Before nodes are read: a weight that a reader turns takes its scales along."""
    constants = {tensor.name for tensor in model.graph.initializer} & codings.by_value.keys()
    _note(draft, codings, model, constants)


def note_results(draft: Draft, codings: Codings, model: ModelProto) -> None:
    """After nodes were read: values that are others under another name have passed their types on."""
    computed = codings.by_value.keys() - draft.qparams.keys()
    _note(draft, codings, model, computed)


def _note(draft: Draft, codings: Codings, model: ModelProto, names: set[str]) -> None:
    readers: dict[str, list[NodeProto]] = {name: [] for name in names}
    for node in model.graph.node:
        for name in node.input:
            if name in readers:
                readers[name].append(node)
    for name in names:
        value = draft.resolve(name)
        if value in draft.values.types:
            known = codings.qparams(name, draft.values.types[value].shape, readers[name])
            draft.qparams.setdefault(value, known)


def with_moved_codes(graph: Graph, qparams: Mapping[TensorRef, ImportedQParams]) -> dict[TensorRef, ImportedQParams]:
    """The same with the results of operators that only move codes, where something on codes reads them.

    AIMET leaves those of Reshape, Transpose and their kin out of the older layouts; runtimes pass them on.
    """
    found = dict(qparams)
    for node in graph.nodes:
        weighted = graph.is_layer(node) and any(ref in found and graph.is_constant(ref) for ref in node.tensors)
        if node.op in _MOVES or not (weighted or any(ref in found for ref in node.outputs)):
            continue
        for ref in node.tensors:
            way = []
            while ref not in found and ref in graph.producers and graph.producers[ref].op in _MOVES:
                way.append(ref)
                ref = graph.producers[ref].tensors[0]
            if ref in found and not graph.is_constant(ref):
                found.update(dict.fromkeys(way, found[ref]))
    return found


def with_biases(graph: Graph, qparams: Mapping[TensorRef, ImportedQParams]) -> dict[TensorRef, ImportedQParams]:
    """The same with int32 for the biases of layers whose data and weights are whole numbers, as their runtimes do."""
    found = dict(qparams)
    for node in graph.nodes:
        if not graph.is_layer(node):
            continue
        data, weight, bias = (node.inputs[i] if i < len(node.inputs) else None for i in graph.layer_positions(node))
        if data is None or weight is None or bias is None or bias in found or not graph.is_constant(bias):
            continue
        scale = _product(qparams.get(data), qparams.get(weight))
        if scale is None:
            continue
        known = qparams_of("int32", scale, None, 0 if scale.ndim else None)
        assert known is not None  # int32 is a format
        found[bias] = known
    return found


def _product(data: ImportedQParams | None, weight: ImportedQParams | None) -> np.ndarray | None:
    """The scale of a bias; None where its layer has no whole accumulators."""
    for each in (data, weight):
        if each is None or each.scale is None or each.spec.block_size or not isinstance(each.spec.format, IntFormat):
            return None
    assert data is not None and weight is not None and data.scale is not None and weight.scale is not None
    return None if data.scale.ndim else np.asarray(data.scale * weight.scale, np.float32)
