"""Mutates ONNX files: bytes of the file, and parts of the message."""

import random
from collections.abc import Callable
from typing import Any

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

_NUMBERS = (-(1 << 63), -1, 0, 1, 2, 7, 1 << 20, 1 << 31, (1 << 63) - 1)
_NAMES = ("", "x", "y", "/", "a\0b", "@0.0.0", "unk__0", "../../etc/passwd", "é" * 50, "x" * 3000)


def mutated(content: bytes, dice: random.Random) -> bytes:
    """One to four mutations of a file."""
    if dice.random() < 0.4:
        return _mutated_bytes(content, dice)
    model = ModelProto.FromString(content)
    for _ in range(dice.randint(1, 4)):
        dice.choice(_STRUCTURAL)(model, dice)
    return model.SerializeToString()


def _mutated_bytes(content: bytes, dice: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(dice.randint(1, 8)):
        kind, at = dice.randrange(4), dice.randrange(len(data)) if data else 0
        if kind == 0 and data:
            data[at] = dice.randrange(256)
        elif kind == 1:
            data[at : at + dice.randint(1, 40)] = b""
        elif kind == 2:
            data[at:at] = bytes(dice.randrange(256) for _ in range(dice.randint(1, 20)))
        else:
            other = dice.randrange(len(data)) if data else 0
            data[at:at] = data[other : other + dice.randint(1, 60)]
    return bytes(data)


def _node(model: ModelProto, dice: random.Random) -> NodeProto | None:
    return dice.choice(model.graph.node) if model.graph.node else None


def _names(model: ModelProto) -> list[str]:
    made = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return [*made, *_NAMES, *(tensor.name for tensor in model.graph.initializer)]


def _rewire(model: ModelProto, dice: random.Random) -> None:
    node = _node(model, dice)
    if node is not None:
        field = dice.choice([node.input, node.output])
        if field and dice.random() < 0.7:
            field[dice.randrange(len(field))] = dice.choice(_names(model))
        else:
            field.append(dice.choice(_names(model)))


def _drop(model: ModelProto, dice: random.Random) -> None:
    field = dice.choice([model.graph.node, model.graph.initializer, model.graph.input, model.graph.output])
    if field:
        del field[dice.randrange(len(field))]


def _duplicate(model: ModelProto, dice: random.Random) -> None:
    field: Any = dice.choice([model.graph.node, model.graph.initializer, model.graph.input, model.graph.value_info])
    if field:
        field.append(dice.choice(field))


def _shuffle(model: ModelProto, dice: random.Random) -> None:
    nodes = list(model.graph.node)
    dice.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _other_operator(model: ModelProto, dice: random.Random) -> None:
    node = _node(model, dice)
    if node is not None:
        node.op_type = dice.choice(OPERATORS)


def _other_domain(model: ModelProto, dice: random.Random) -> None:
    node = _node(model, dice)
    if node is not None:
        node.domain = dice.choice(["", "ai.onnx", "com.microsoft", "com.example", "ai.onnx.ml"])


def _attribute(model: ModelProto, dice: random.Random) -> None:
    node = _node(model, dice)
    if node is None:
        return
    if node.attribute and dice.random() < 0.3:
        del node.attribute[dice.randrange(len(node.attribute))]
        return
    attribute = dice.choice(node.attribute) if node.attribute and dice.random() < 0.7 else node.attribute.add()
    attribute.name = attribute.name or dice.choice(
        ["axis", "perm", "pads", "kernel_shape", "to", "axes", "group", "mode"]
    )
    kind = dice.choice([AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.STRING])
    attribute.type = kind
    if kind == AttributeProto.INT:
        attribute.i = dice.choice(_NUMBERS)
    elif kind == AttributeProto.INTS:
        attribute.ints[:] = [dice.choice(_NUMBERS) for _ in range(dice.randint(0, 5))]
    elif kind == AttributeProto.FLOAT:
        attribute.f = dice.choice([0.0, -1.0, float("nan"), float("inf"), 1e-40])
    else:
        attribute.s = dice.choice(_NAMES).encode()


def _tensor(model: ModelProto, dice: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor: TensorProto = dice.choice(model.graph.initializer)
    kind = dice.randrange(5)
    if kind == 0 and tensor.dims:
        tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(_NUMBERS)
    elif kind == 1:
        tensor.dims.append(dice.choice(_NUMBERS))
    elif kind == 2:
        tensor.data_type = dice.randrange(30)
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: dice.randrange(len(tensor.raw_data) + 1)]
    else:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=dice.choice(_NAMES))


def _values(model: ModelProto, dice: random.Random) -> None:
    """Other numbers in a small tensor: axes, sizes, bounds, scales."""
    small = [tensor for tensor in model.graph.initializer if 0 < len(tensor.raw_data) <= 64]
    if small:
        tensor = dice.choice(small)
        step = 8 if len(tensor.raw_data) % 8 == 0 else 1
        number = dice.choice(_NUMBERS).to_bytes(8, "little", signed=True)[:step]
        at = step * dice.randrange(len(tensor.raw_data) // step)
        tensor.raw_data = tensor.raw_data[:at] + number + tensor.raw_data[at + step :]


def _shape(model: ModelProto, dice: random.Random) -> None:
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if infos:
        tensor = dice.choice(infos).type.tensor_type
        if tensor.shape.dim and dice.random() < 0.7:
            dim = dice.choice(tensor.shape.dim)
            if dice.random() < 0.3:
                dim.dim_param = "n"
            else:
                dim.dim_value = dice.choice(_NUMBERS)
        else:
            tensor.shape.dim.add(dim_value=dice.choice(_NUMBERS))
        if dice.random() < 0.2:
            tensor.elem_type = dice.randrange(30)


def _version(model: ModelProto, dice: random.Random) -> None:
    if dice.random() < 0.5:
        model.ir_version = dice.choice([0, 3, 4, 8, 10, 99])
    elif model.opset_import:
        dice.choice(model.opset_import).version = dice.choice([0, 1, 7, 9, 11, 13, 17, 20, 23, 1000])


_STRUCTURAL: list[Callable[[ModelProto, random.Random], None]] = [
    *(_rewire, _drop, _duplicate, _shuffle, _other_operator, _other_domain, _attribute, _tensor, _values, _shape),
    *(_version, _attribute, _values, _other_operator, _rewire, _shape),
]
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
