"""A float ONNX file with a calibration cache and a precision for each layer: TensorRT's implicit quantization.

That is how Orin's DLA takes int8 (NVIDIA, Deep-Learning-Accelerator-SW, tools/qdq-translator). Beside `NAME.onnx`:

    NAME.calib.cache      scales of activations, symmetric int8; see `onnx_import.calibration_cache`
    NAME.precisions.json  what the cache cannot say; see `onnx_import.implicit`
    NAME.trtexec.txt      the arguments for trtexec, one a line

TensorRT computes scales of weights itself, max |w| / 127. Where the plan has others, weights are written as the values
of their codes, from which TensorRT finds the plan's scale if a code of 127 is among them; else they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx

from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import Exporter, described
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.export.onnx_qdq import DEFAULT_OPSET, export_float
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.onnx_import.calibration_cache import SUFFIX, as_digits
from bitwright.quant.onnx_import.implicit import PRECISIONS_SUFFIX, Precisions, weight_scale
from bitwright.quant.onnx_import.origins import base_name
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import BiasKind

DEFAULT_TENSORRT = "10.7.0"
ARGUMENTS_SUFFIX = ".trtexec.txt"
# What follows a layer and only cuts its result: rounding before or behind it gives the same codes.
_CUTS = frozenset({"relu", "hardtanh", "clamp"})
_MOVES = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
_NOT_IN_NAMES = frozenset(',:" \n\r\t')


def write_tensorrt_implicit(
    quantized: QuantizedModel, path: Path, *, tensorrt: str = DEFAULT_TENSORRT, dla_core: str = ""
) -> tuple[Path, ...]:
    """Writes the network, the cache, the precisions and the arguments.

    Args:
        quantized: symmetric int8 throughout; layers in float become fp16.
        path: the `.onnx` file.
        tensorrt: the version that reads the cache: another one ignores it and calibrates anew.
        dla_core: which DLA is to run it; empty for the GPU.

    Raises:
        InputError: an activation or weight that is not symmetric int8 with one fixed scale (weights: one a channel),
            a scale that TensorRT would not find, or a setting out of range.
    """
    header = f"TRT-{_version_number(tensorrt)}-EntropyCalibration2"
    if dla_core and not dla_core.isdecimal():
        raise InputError(f"dla_core = {dla_core!r}; expected a number, such as 0")
    baked = _baked_weights(quantized)
    for ref in quantized.plan.activations:
        _check_spec(quantized, ref)
    graph = quantized.captured.graph
    _check_names(graph)
    scales = {value_name(ref): float(quantized.qparams[ref].scale) for ref in _scaled(quantized)}
    file = export_float(_with_values(graph, baked), path, opset=DEFAULT_OPSET)
    nodes = onnx.load(file, load_external_data=False).graph.node
    inside = _inside(quantized, nodes, scales)
    precisions = _precisions(quantized, nodes, inside)
    lines = [header, *(f"{name}: {as_digits(np.float32(scale))}" for name, scale in {**scales, **inside}.items())]
    beside = [path.with_suffix(suffix) for suffix in (SUFFIX, PRECISIONS_SUFFIX, ARGUMENTS_SUFFIX)]
    beside[0].write_text("\n".join([*lines, ""]), encoding="utf-8")
    beside[1].write_text(json.dumps(precisions.to_json(), indent=1), encoding="utf-8")
    beside[2].write_text("\n".join([*_arguments(file, beside[0], precisions, dla_core), ""]), encoding="utf-8")
    return file, *beside


def _version_number(version: str) -> int:
    """As `NV_TENSORRT_VERSION`: 8.6.1 is 8601, from 10 on 10.7.0 is 100700 (NvInferVersion.h)."""
    parts = version.split(".")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise InputError(f"tensorrt = {version!r}; expected MAJOR.MINOR.PATCH, such as {DEFAULT_TENSORRT}")
    major, minor, patch = map(int, parts)
    if major < 10:
        return major * 1000 + minor * 100 + patch
    if major > 10:
        raise InputError(f"tensorrt = {version!r}; TensorRT 11 has no implicit quantization: take 10 or older")
    return major * 10000 + minor * 100 + patch


# --- what implicit quantization cannot say ---


def _check_spec(quantized: QuantizedModel, ref: TensorRef) -> None:
    spec = (quantized.plan.activations.get(ref) or quantized.plan.weights.get(ref)) or quantized.qparams[ref].spec
    what = described(quantized.captured.graph, ref)
    if spec.dynamic:
        raise InputError(f"{what}: its scale follows the data; a calibration cache holds fixed scales")
    if spec.format.name != "int8":
        raise InputError(f"{what}: format {spec.format.name}; TensorRT's implicit quantization has int8 alone")
    if bool(quantized.qparams[ref].zero_point.any()):
        raise InputError(
            f"{what}: asymmetric, with the zero point {int(quantized.qparams[ref].zero_point.reshape(-1)[0])}; "
            "TensorRT's implicit quantization is symmetric: quantize with symmetric: true"
        )
    if spec.block_size is not None:
        raise InputError(f"{what}: a scale for each block; TensorRT's implicit quantization has whole ones")


def _check_names(graph: Graph) -> None:
    for ref, node in graph.producers.items():
        if _NOT_IN_NAMES & set(value_name(ref)):
            raise InputError(
                f"tensor {str(ref)!r} of {node.op}: trtexec takes no names with commas, colons, quotes or spaces; "
                "rename the module"
            )


def _layer_weights(quantized: QuantizedModel) -> dict[TensorRef, Node]:
    """The weights of layers, whose scales TensorRT computes; other constants have theirs in the cache."""
    graph, found = quantized.captured.graph, {}
    for ref in quantized.plan.weights:
        for node in graph.consumers[ref]:
            if graph.is_layer(node) and node.inputs[graph.layer_positions(node)[1]] == ref:
                found[ref] = node
    return found


def _scaled(quantized: QuantizedModel) -> Iterator[TensorRef]:
    weights = _layer_weights(quantized)
    yield from quantized.plan.activations
    for ref in quantized.plan.weights:
        if ref not in weights:
            if quantized.qparams[ref].scale.dim():
                what = described(quantized.captured.graph, ref)
                raise InputError(f"{what}: a scale for each channel; a calibration cache holds one for a tensor")
            yield ref


def _baked_weights(quantized: QuantizedModel) -> dict[TensorRef, np.ndarray]:
    """The values of codes, for weights from which TensorRT would find other scales than the plan's."""
    baked = {}
    for ref in quantized.plan.weights:
        _check_spec(quantized, ref)
    for ref in _layer_weights(quantized):
        qparams, name = quantized.qparams[ref], quantized.captured.value_refs[ref]
        wanted = qparams.scale.numpy()
        if np.array_equal(weight_scale(quantized.captured.values[name].numpy(), qparams.axis), wanted):
            continue
        values = quantized.simulated_values[name].numpy()
        found = weight_scale(values, qparams.axis)
        dead = found == 1  # a channel of zeros has no scale that matters
        if not np.allclose(np.where(dead, wanted, found), wanted, rtol=1e-6, atol=0):
            worst = int(np.argmax(np.abs(np.where(dead, 0, found / wanted - 1))))
            raise InputError(
                f"{described(quantized.captured.graph, ref)}: scale {wanted.reshape(-1)[worst]:.6g}; TensorRT takes "
                f"max |w| / 127 = {found.reshape(-1)[worst]:.6g}: quantize weights with observer min_max, narrow_range "
                "and scale_kind float32"
            )
        baked[ref] = values
    return baked


def _with_values(graph: Graph, values: Mapping[TensorRef, np.ndarray]) -> Graph:
    if not values:
        return graph
    return replace(graph, load=lambda ref: values[ref] if ref in values else graph.array(ref))


# --- what TensorRT is told ---


def _inside(quantized: QuantizedModel, nodes: list[onnx.NodeProto], scales: Mapping[str, float]) -> dict[str, float]:
    """Scales of values within what the plan has as one: without them TensorRT leaves int8 there."""
    graph, found = quantized.captured.graph, {}
    for chain in quantized.plan.fused:
        members = [graph.by_name[name] for name in chain]
        result = scales.get(value_name(members[-1].outputs[0]))
        if result is not None and all(node.op in _CUTS for node in members[1:]):
            found.update({value_name(ref): result for node in members[:-1] for ref in node.outputs})
    moved = [(node.input[0], node.output[0]) for node in nodes if node.op_type in _MOVES and node.input]
    for pairs in (moved, [(result, source) for source, result in reversed(moved)]):
        for source, result in pairs:
            known = scales.get(source, found.get(source))
            if known is not None and "/" in result and result not in scales:
                found[result] = known
    return {name: scale for name, scale in found.items() if name not in scales}


def _precisions(quantized: QuantizedModel, nodes: list[onnx.NodeProto], inside: Mapping[str, float]) -> Precisions:
    graph, plan = quantized.captured.graph, quantized.plan
    made = {value_name(ref): node for ref, node in graph.producers.items()}
    layers = {}
    for node in nodes:
        origin = made.get(base_name(node.output[0]))
        if origin is None or not graph.tensors[origin.outputs[0]].is_floating:
            continue
        layers[node.name] = "int8" if origin.name in plan.quantized else "fp16"
    whole = [ref for ref in _layer_weights(quantized) if not quantized.qparams[ref].scale.dim()]
    return Precisions(
        one_scale=frozenset(map(value_name, whole)),
        int32_biases=plan.scheme.bias is BiasKind.INT32,
        layers=layers,
        inside=frozenset(inside),
    )


def _arguments(file: Path, cache: Path, precisions: Precisions, dla_core: str) -> list[str]:
    each = ",".join(f"{name}:{precision}" for name, precision in precisions.layers.items())
    return [
        f"--onnx={file.name}",
        f"--calib={cache.name}",
        "--int8",
        "--fp16",
        "--precisionConstraints=obey",
        *([f"--layerPrecisions={each}"] if each else []),
        *([f"--useDLACore={dla_core}", "--allowGPUFallback"] if dla_core else []),
    ]


EXPORTER = Exporter(
    title="float ONNX, TensorRT calibration cache and precisions of layers",
    write=write_tensorrt_implicit,
    settings=MappingProxyType(
        {
            "tensorrt": f"the version that reads the cache, such as {DEFAULT_TENSORRT}, which it is if not given",
            "dla_core": "which DLA is to run it; the GPU if not given",
        }
    ),
)
