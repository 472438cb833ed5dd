"""Faults to plant in the files of a network, one function a kind: each is what some exporter or runtime has done.

A function changes a model at a place drawn by a generator, and returns the value that comes out wrong; None where the
network has no such place. It knows nothing of what looks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, helper, numpy_helper

Array = npt.NDArray[Any]
Draw = np.random.Generator
Plant = Callable[[onnx.ModelProto, Draw], str | None]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: of the field.
        file: where it is planted: `float`, `quantized`, or `passed`, the float file behind a wrong optimiser pass.
        plant: plants it.
    """

    name: str
    file: str
    plant: Plant


def _draw(draw: Draw, places: list[Any]) -> Any:
    return places[int(draw.integers(len(places)))] if places else None


def _nodes(model: onnx.ModelProto, *ops: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type in ops]


def _weighted(model: onnx.ModelProto, suffix: str) -> list[tuple[NodeProto, str]]:
    """Layers with the initializer of their weight: itself in a float file, its codes behind a DQ in a quantized one."""
    names = {each.name for each in model.graph.initializer}
    found = []
    for node in _nodes(model, "Conv", "Gemm"):
        name = node.input[1].removesuffix("/dq") + suffix
        if name in names:
            found.append((node, name))
    return found


def _initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(each for each in model.graph.initializer if each.name == name)


def _array(model: onnx.ModelProto, name: str) -> Array:
    values: Array = numpy_helper.to_array(_initializer(model, name))
    return values


def _write(model: onnx.ModelProto, name: str, values: Any, dtype: Any = None) -> None:
    old = _initializer(model, name)
    array = np.asarray(values, dtype or numpy_helper.to_array(old).dtype, order="C")
    old.CopyFrom(numpy_helper.from_array(array, name))


def _attribute(node: NodeProto, name: str, value: Any) -> None:
    kept = [each for each in node.attribute if each.name != name]
    node.ClearField("attribute")
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _weights(change: Callable[[Array], Array], suffix: str, fits: Callable[[Array], bool]) -> Plant:
    def plant(model: onnx.ModelProto, draw: Draw) -> str | None:
        places = [(n, w) for n, w in _weighted(model, suffix) if fits(_array(model, w))]
        if not places:
            return None
        node, name = _draw(draw, places)
        _write(model, name, change(_array(model, name)))
        return str(node.output[0])

    return plant


def _is_image(weight: Array) -> bool:
    return weight.ndim == 4 and weight.shape[2] == weight.shape[3] > 1


def _is_wide(weight: Array) -> bool:
    return weight.ndim >= 2 and weight.shape[1] > 2


def _activation_scale(model: onnx.ModelProto, draw: Draw) -> str | None:
    node = _draw(draw, _nodes(model, "QuantizeLinear"))
    _write(model, node.input[1], _array(model, node.input[1]) * 1.05)
    return str(node.output[0]).removesuffix("/q")


def _zero_point(model: onnx.ModelProto, draw: Draw) -> str | None:
    """Readers take another zero point than what wrote the codes."""
    node = _draw(draw, _nodes(model, "QuantizeLinear"))
    reader = next(each for each in _nodes(model, "DequantizeLinear") if each.input[0] == node.output[0])
    old = _array(model, node.input[2])
    moved = numpy_helper.from_array(np.asarray(old + 1 if old < 255 else old - 1, old.dtype), f"{node.input[2]}/off")
    model.graph.initializer.append(moved)
    reader.input[2] = moved.name
    return str(node.output[0]).removesuffix("/q")


def _rounds_down(model: onnx.ModelProto, draw: Draw) -> str | None:
    """`floor` in place of rounding to the nearest code."""
    node = _draw(draw, _nodes(model, "QuantizeLinear"))
    name, scale = node.output[0].removesuffix("/q"), _array(model, node.input[1])
    half = numpy_helper.from_array(np.asarray(scale / 2, np.float32), f"{name}/half")
    model.graph.initializer.append(half)
    place = list(model.graph.node).index(node)
    model.graph.node.insert(place, helper.make_node("Sub", [node.input[0], half.name], [f"{name}/down"]))
    model.graph.node[place + 1].input[0] = f"{name}/down"
    return str(name)


def _bias(change: Callable[[Array], Array], part: str) -> Plant:
    def plant(model: onnx.ModelProto, draw: Draw) -> str | None:
        names = {each.name for each in model.graph.initializer}
        places = [
            (node, node.input[2].removesuffix("/dq") + part)
            for node in _nodes(model, "Conv", "Gemm")
            if len(node.input) > 2 and node.input[2].removesuffix("/dq") + part in names
        ]
        places = [(node, name) for node, name in places if np.any(_array(model, name))]
        if not places:
            return None
        node, name = _draw(draw, places)
        _write(model, name, change(_array(model, name)))
        return str(node.output[0])

    return plant


def _pads(model: onnx.ModelProto, draw: Draw) -> str | None:
    """All padding on one side, as SAME_LOWER against SAME_UPPER."""
    places = [n for n in _nodes(model, "Conv") for a in n.attribute if a.name == "pads" and max(a.ints) > 0]
    if not places:
        return None
    node = _draw(draw, places)
    pads = next(list(a.ints) for a in node.attribute if a.name == "pads")
    half = len(pads) // 2
    _attribute(node, "pads", [p + q for p, q in zip(pads[:half], pads[half:], strict=True)] + [0] * half)
    return str(node.output[0])


def _epsilon(model: onnx.ModelProto, draw: Draw) -> str | None:
    node = _draw(draw, _nodes(model, "LayerNormalization"))
    if node is None:
        return None
    _attribute(node, "epsilon", 0.05)
    return str(node.output[0])


def _folded_epsilon(model: onnx.ModelProto, draw: Draw) -> str | None:
    """A batch norm of variance 1 folded with epsilon 1e-3 in place of 1e-5: a factor of 1 / sqrt(1 + 1e-3)."""
    plant = _weights(lambda w: w / np.sqrt(1 + 1e-3), "", lambda w: w.ndim == 4)
    return plant(model, draw)


def _not_folded(model: onnx.ModelProto, draw: Draw) -> str | None:
    """The norm's shift is lost and its scale is not in the weights."""
    places = [(n, w) for n, w in _weighted(model, "") if n.op_type == "Conv" and len(n.input) > 2]
    if not places:
        return None
    node, name = _draw(draw, places)
    old = _array(model, name)
    scale = draw.uniform(0.5, 2.0, size=(len(old), *[1] * (old.ndim - 1)))
    _write(model, name, old * scale)
    return str(node.output[0])


def _replaced(op: str, by: str, **attributes: Any) -> Plant:
    def plant(model: onnx.ModelProto, draw: Draw) -> str | None:
        node = _draw(draw, _nodes(model, op))
        if node is None:
            return None
        node.op_type = by
        del node.input[1 if by in ("Identity", "Relu") else len(node.input) :]
        for name, value in attributes.items():
            _attribute(node, name, value)
        return str(node.output[0])

    return plant


def _clip_bound(model: onnx.ModelProto, draw: Draw) -> str | None:
    """ReLU6 that ends at 5."""
    places = [n for n in _nodes(model, "Clip") if len(n.input) > 2 and n.input[2] and "/q" not in n.output[0]]
    node = _draw(draw, places)
    if node is None:
        return None
    bound = numpy_helper.from_array(np.asarray(5.0, np.float32), f"{node.output[0]}/five")
    model.graph.initializer.append(bound)
    node.input[2] = bound.name
    return str(node.output[0])


def _swapped_operands(model: onnx.ModelProto, draw: Draw) -> str | None:
    """The parts of a concatenation in another order."""
    node = _draw(draw, [n for n in _nodes(model, "Concat") if len(set(n.input)) > 1])
    if node is None:
        return None
    turned = list(node.input)[::-1]
    del node.input[:]
    node.input.extend(turned)
    return str(node.output[0])


def _dropped_residual(model: onnx.ModelProto, draw: Draw) -> str | None:
    names = {each.name for each in model.graph.initializer}
    places = [n for n in _nodes(model, "Add") if not names.intersection(n.input)]
    node = _draw(draw, places)
    if node is None:
        return None
    node.op_type = "Identity"
    del node.input[1:]
    return str(node.output[0])


def _align_corners(model: onnx.ModelProto, draw: Draw) -> str | None:
    node = _draw(draw, _nodes(model, "Resize"))
    if node is None:
        return None
    _attribute(node, "coordinate_transformation_mode", "align_corners")
    return str(node.output[0])


def _pool_padding(model: onnx.ModelProto, draw: Draw) -> str | None:
    """All padding of a pool on one side."""
    places = [
        n for n in _nodes(model, "AveragePool", "MaxPool") for a in n.attribute if a.name == "pads" and any(a.ints)
    ]
    node = _draw(draw, places)
    if node is None:
        return None
    pads = next(list(a.ints) for a in node.attribute if a.name == "pads")
    half = len(pads) // 2
    _attribute(node, "pads", [p + q for p, q in zip(pads[:half], pads[half:], strict=True)] + [0] * half)
    return str(node.output[0])


def _layout(model: onnx.ModelProto, draw: Draw) -> str | None:
    """Channels last where a flattening reader expects channels first, as far as the shapes hide it."""
    places = [
        n for n in _nodes(model, "Transpose") for a in n.attribute if a.name == "perm" and list(a.ints) == [0, 2, 1]
    ]
    node = _draw(draw, places)
    if node is None:
        return None
    shapes = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    sizes = [d.dim_value for d in shapes[node.output[0]].type.tensor_type.shape.dim]
    shape = numpy_helper.from_array(np.asarray(sizes, np.int64), f"{node.output[0]}/sizes")
    model.graph.initializer.append(shape)
    node.op_type = "Reshape"
    node.ClearField("attribute")
    node.input.append(shape.name)
    return str(node.output[0])


def _old_opset(model: onnx.ModelProto, draw: Draw) -> str | None:
    """Softmax as before opset 13: over all that follows the axis, here one axis too early."""
    node = _draw(draw, _nodes(model, "Softmax"))
    if node is None:
        return None
    _attribute(node, "axis", 1)
    return str(node.output[0])


def _last_is_wrong(weight: Array) -> Array:
    return np.concatenate([weight[1:], weight[:1]])


def _kinds() -> Iterator[Kind]:
    codes = "/codes"
    yield Kind(name="wrong scale", file="quantized", plant=_activation_scale)
    yield Kind(name="zero point off by one", file="quantized", plant=_zero_point)
    yield Kind(name="wrong rounding", file="quantized", plant=_rounds_down)
    yield Kind(
        name="transposed weights",
        file="quantized",
        plant=_weights(lambda w: w.swapaxes(2, 3), codes, _is_image),
    )
    yield Kind(name="channel order", file="quantized", plant=_weights(lambda w: w[:, ::-1], codes, _is_wide))
    yield Kind(name="bias scale", file="quantized", plant=_bias(lambda s: s * 2, "/scale"))
    yield Kind(name="bias lost", file="quantized", plant=_bias(np.zeros_like, codes))
    yield Kind(
        name="saturating cast", file="quantized", plant=_weights(lambda w: w.clip(-64, 63), codes, lambda w: True)
    )
    yield Kind(
        name="stale scales of channels",
        file="quantized",
        plant=_weights(_last_is_wrong, "/scale", lambda s: s.size > 2),
    )
    yield Kind(name="padding on one side", file="float", plant=_pads)
    yield Kind(name="batch norm not folded", file="float", plant=_not_folded)
    yield Kind(name="batch norm's epsilon", file="float", plant=_folded_epsilon)
    yield Kind(name="layer norm's epsilon", file="float", plant=_epsilon)
    yield Kind(name="channels transposed", file="float", plant=_weights(lambda w: w[::-1], "", _is_wide))
    yield Kind(name="align_corners", file="float", plant=_align_corners)
    yield Kind(name="pool's padding", file="float", plant=_pool_padding)
    yield Kind(name="hard sigmoid's slope", file="float", plant=_replaced("HardSigmoid", "HardSigmoid", alpha=0.2))
    yield Kind(name="GELU by tanh", file="float", plant=_replaced("Gelu", "Gelu", approximate="tanh"))
    yield Kind(name="softmax of an old opset", file="float", plant=_old_opset)
    yield Kind(name="layout", file="float", plant=_layout)
    yield Kind(name="concatenated in another order", file="passed", plant=_swapped_operands)
    yield Kind(name="activation fused away", file="passed", plant=_replaced("Relu", "Identity"))
    yield Kind(name="clamp fused with another bound", file="passed", plant=_clip_bound)
    yield Kind(name="residual lost in a fusion", file="passed", plant=_dropped_residual)


KINDS = tuple(_kinds())
