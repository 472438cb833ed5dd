"""TensorRT's implicit quantization: scales of activations from the calibration cache, of weights from the weights.

`NAME.precisions.json` beside the cache says what the cache cannot; without it TensorRT's documented defaults hold.

    {"format": "bitwright-tensorrt/1", "biases": "float32", "layers": {layer: "int8" | "fp16" | "fp32"},
     "one_scale": [weights without a scale for each channel], "inside": [tensors within layers that run as one]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from bitwright.quant.errors import InputError
from bitwright.quant.onnx_import.calibration_cache import SUFFIX, read_calibration_cache
from bitwright.quant.onnx_import.coding import Coding, Codings, channel_axis
from bitwright.quant.onnx_import.values import Values

Array = npt.NDArray[Any]
PRECISIONS_SUFFIX = ".precisions.json"
FORMAT = "bitwright-tensorrt/1"
LARGEST_CODE = 127
_UNNAMED = "(Unnamed Layer"  # what TensorRT itself puts between the layers of the file
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, kw_only=True)
class Precisions:
    """What TensorRT is told beside the cache.

    Attributes:
        one_scale: weights that the plan codes whole; TensorRT has a scale for each output channel.
        int32_biases: whether the plan keeps biases as int32 on the accumulators' scale.
        layers: the precision of each layer, by the name of its ONNX node; others are TensorRT's choice.
        inside: tensors within layers that run as one; their scales only keep TensorRT from leaving int8 there.
    """

    one_scale: frozenset[str] = frozenset()
    int32_biases: bool = False
    layers: Mapping[str, str] = field(default_factory=dict)
    inside: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "format": FORMAT,
            "biases": "int32" if self.int32_biases else "float32",
            "layers": dict(self.layers),
            "one_scale": sorted(self.one_scale),
            "inside": sorted(self.inside),
        }


def read_precisions(path: Path) -> Precisions:
    """Reads `NAME.precisions.json`; TensorRT's defaults where there is none.

    Raises:
        InputError: it is no such file.
    """
    if not path.is_file():
        return Precisions()
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise InputError(f"{path}: format = {content['format']!r}; allowed: {FORMAT!r}")
        return Precisions(
            one_scale=frozenset(map(str, content["one_scale"])),
            int32_biases=content["biases"] == "int32",
            layers={str(name): str(precision) for name, precision in content["layers"].items()},
            inside=frozenset(map(str, content["inside"])),
        )
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]} is missing; export the network again") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: {error}; export the network again, or remove the file") from error


def codings_of_cache(path: Path, model: ModelProto, values: Values) -> Codings:
    """How tensors are coded when TensorRT quantizes a float network by a cache.

    A layer runs in int8 where its data has a scale and nothing asks for another precision.

    Args:
        path: the cache.
        model: the network beside it.
        values: its constants.

    Raises:
        InputError: a damaged file.
    """
    stem = path.name.removesuffix(SUFFIX)
    precisions = read_precisions(path.with_name(f"{stem}{PRECISIONS_SUFFIX}"))
    scales = read_calibration_cache(path)
    found = {
        name: _symmetric(scale)
        for name, scale in scales.items()
        if name not in precisions.inside and not name.startswith(_UNNAMED)
    }
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type not in _LAYERS or precisions.layers.get(node.name, "int8") != "int8":
            continue
        weight = node.input[1] if len(node.input) > 1 else ""
        if node.input[0] not in scales or not values.is_constant(weight) or weight in found:
            continue
        axis = channel_axis(weight, values.types[weight].shape, readers[weight])
        scale = weight_scale(values.loaders[weight](), None if weight in precisions.one_scale else axis)
        found[weight] = _symmetric(scale, axis)
    return Codings(file=str(path), by_value=found, int32_biases=precisions.int32_biases)


def weight_scale(weight: Array, axis: int | None) -> Array:
    """The scale that TensorRT gives a weight: max |w| / 127 of each output channel, float32 `[C]`, or `[]` of all.

    Args:
        weight: float32.
        axis: of the output channels; None for one scale.
    """
    magnitude = np.abs(weight.astype(np.float64))
    others = None if axis is None else tuple(d for d in range(weight.ndim) if d != axis)
    scale = (magnitude.max(axis=others) / LARGEST_CODE).astype(np.float32)
    return np.where(scale == 0, np.float32(1), np.maximum(scale, np.finfo(np.float32).tiny)).astype(np.float32)


def _symmetric(scale: Array | np.float32, axis: int | None = None) -> Coding:
    scales = np.asarray(scale, np.float32)
    return Coding(dtype="int8", scale=scales, zero_point=np.zeros_like(scales), axis=axis if scales.ndim else None)
