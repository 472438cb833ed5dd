"""Layers of a TensorRT engine as its inspector describes them: JSON of `get_engine_information`, `--exportLayerInfo`.

`Layers` is a list of objects with `Name`, `LayerType`, `Inputs` and `Outputs`, and the names of the ONNX nodes in
`Metadata`; built without detailed verbosity, a list of names. The element type of an operand is in `Format/Datatype` up
to TensorRT 10, in a field of its own from 11 on. TensorRT Developer Guide, "Engine Inspector", and "Migrating
IEngineInspector Usage from TensorRT 10.x to 11.x".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from bitwright.hw_constraints.backends.base import ExecutedNode
from bitwright.quant.errors import InputError

Layer = Mapping[str, Any]

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_COPY = re.compile(r"^Reformatting CopyNode for \w+ Tensor \d+ to ")
_FOREIGN = re.compile(r"^\{ForeignNode\[(.*)\.\.\.(.*)\]\}$")
_POINTWISE = re.compile(r"PWN\(|[()]")
_MULTIPLIES = re.compile(r"conv|gemm|matmul|matrixmultiply|fully", re.IGNORECASE)
_OPAQUE = "Myelin"  # a whole subgraph in one layer, whose inside the inspector does not show
_TYPE_FIELDS = ("DataType", "Datatype", "Format/Datatype", "Format")
# Words of "Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP16 format", "Half", "FP8".
# The first that is found counts.
_PRECISIONS = (
    (re.compile(r"bf16|bfloat16", re.IGNORECASE), "bfloat16"),
    (re.compile(r"fp8|float8", re.IGNORECASE), "fp8"),
    (re.compile(r"fp4|float4|int4", re.IGNORECASE), "int4"),
    (re.compile(r"u?int8", re.IGNORECASE), "int8"),
    (re.compile(r"fp16|half", re.IGNORECASE), "float16"),
    (re.compile(r"fp32|float", re.IGNORECASE), "float32"),
)


def read_layers(text: str) -> list[Layer]:
    """The layers in an inspector's JSON.

    Raises:
        InputError: it is something else, or holds names only.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"not what TensorRT's engine inspector writes: no 'Layers' in it ({error})") from error
    return check_layers(layers)


def check_layers(layers: Any) -> list[Layer]:
    """The same list, when each of its entries describes a layer.

    Raises:
        InputError: one does not.
    """
    if any(isinstance(layer, str) for layer in layers):
        raise InputError("the engine holds layer names only; build it with detailed profiling verbosity")
    if not all(isinstance(layer, dict) and isinstance(layer.get("Name"), str) for layer in layers):
        raise InputError("an entry of 'Layers' has no 'Name'")
    return list(layers)


def layer_type(layer: Layer) -> str:
    """TensorRT's type of it; `Reformat` for the copies that older versions only tell by name."""
    return str(layer.get("LayerType", "Reformat" if _COPY.match(layer["Name"]) else ""))


def precision_of_layer(layer: Layer) -> str | None:
    """What a layer computes in: what it multiplies, else its largest real-valued operand; None when nothing says so."""
    inputs = [each for each in layer.get("Inputs", ()) if isinstance(each, dict)]
    typed = [(_volume(each), _precision(each)) for each in inputs]
    known = [(volume, name) for volume, name in typed if name]
    if layer_type(layer) == _OPAQUE or not inputs:
        return None
    if not known:
        return "other"
    return known[0][1] if _MULTIPLIES.search(layer_type(layer)) else max(known)[1]


def executed_node(layer: Layer) -> ExecutedNode:
    """The layer, with the names of the ONNX nodes that went into it."""
    return ExecutedNode(
        name=layer["Name"],
        op=layer_type(layer),
        inputs=_names(layer.get("Inputs", ())),
        outputs=_names(layer.get("Outputs", ())),
        originals=tuple(_ONNX_LAYER.findall(str(layer.get("Metadata", "")))) or split_name(layer["Name"]),
    )


def split_name(name: str) -> tuple[str, ...]:
    """The ONNX names in a fused layer's name: `w + Conv_9 + PWN(Clip_13)` is `w`, `Conv_9`, `Clip_13`.

    `{ForeignNode[a...b]}` is everything from a to b; `Reformatting CopyNode … to x` changes x's operand.
    """
    name = _COPY.sub("", name)
    foreign = _FOREIGN.match(name)
    if foreign:
        return foreign.groups()
    parts = (part for piece in name.split(" + ") for part in _POINTWISE.sub("", piece).split(", "))
    return tuple(filter(None, (part.strip() for part in parts)))


def _names(tensors: Any) -> tuple[str, ...]:
    return tuple(each["Name"] for each in tensors if isinstance(each, dict) and "Name" in each)


def _precision(tensor: Layer) -> str:
    texts = [str(tensor[key]) for key in _TYPE_FIELDS if key in tensor]
    return next((name for text in texts for pattern, name in _PRECISIONS if pattern.search(text)), "")


def _volume(tensor: Layer) -> int:
    sizes = tensor.get("Dimensions", ())
    return math.prod(abs(int(size)) for size in sizes) if isinstance(sizes, list) else 0
