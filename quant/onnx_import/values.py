"""Type, shape and, where the file tells it, content of every value.

Shapes come from ONNX's own inference, once over the whole model and again for nodes that know more by then. Nothing
is allocated for a shape: contents are read on demand, and only those of shape arithmetic (a few numbers) at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, TypeProto, defs, helper, numpy_helper, shape_inference

from bitwright.quant.errors import InputError
from bitwright.quant.onnx_import.element_types import ELEMENT_TYPES, dtype_name
from bitwright.quant.onnx_import.folding import FOLDABLE, evaluate
from bitwright.quant.onnx_import.reading import STANDARD, opset_of
from bitwright.quant.onnx_import.stored_tensor import LARGEST_RANK, load_tensor

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]

# Elements of a content that is looked at while reading: target shapes, axes, bounds, scalars.
SMALL = 4096
# Nobody reads them, but what comes behind them has a shape, too.
_INFERRED_ONLY = frozenset(
    {
        *("Hardmax", "LRN", "LpNormalization", "LpPool", "MeanVarianceNormalization", "RandomNormal"),
        *("RandomNormalLike", "RandomUniform", "RandomUniformLike", "ReduceLogSum", "ReduceSumSquare"),
        *("ReverseSequence", "Shrink", "ThresholdedRelu"),
    }
)
# As in capture: results larger than this and than what they are made of are left to the runtime.
LARGEST_FOLDED = 1 << 22
UNKNOWN_RANK: Shape = (None,)


@dataclass(frozen=True)
class ValueType:
    """The shape (None for an open dimension) and element type of a value; an unknown rank counts as one open one.

    `symbols` are the names of open dimensions, "" for those without; () when there are none.
    """

    shape: Shape
    dtype: str
    symbols: tuple[str, ...] = ()

    @property
    def elements(self) -> int | None:
        """How many elements; None when a dimension is open."""
        return None if None in self.shape else math.prod(size for size in self.shape if size is not None)


class Values:
    """What is known about the values of one model.

    Attributes:
        types: by the value's name.
        loaders: how to read each value that does not depend on the inputs.
        opset: the version of the standard operators.
        reshaped: constants that are other constants in another shape.
    """

    def __init__(self, model: onnx.ModelProto, path: Path, operators: frozenset[str] = frozenset()) -> None:
        self._operators = operators | FOLDABLE | _INFERRED_ONLY
        self.opset = opset_of(model)
        self.types: dict[str, ValueType] = {}
        self.loaders: dict[str, Callable[[], Array]] = {}
        self.reshaped: dict[str, str] = {}
        self._contents: dict[str, Array] = {}
        self._path = path
        for tensor in model.graph.initializer:
            self.add_tensor(tensor.name, tensor)
        self._inferred = _infer_model(model, self._operators)
        for item in model.graph.input:
            if item.name not in self.types:
                self.types[item.name] = _type_of(item.type)

    # --- constants ---

    def add_tensor(self, name: str, tensor: TensorProto) -> None:
        """Notes a tensor that stands in the file."""
        place = f"{self._path}: tensor {name!r}"
        self.add_constant(
            name,
            ValueType(tuple(tensor.dims), dtype_name(tensor.data_type)),
            lambda: load_tensor(tensor, place, self._path.parent),
        )

    def add_constant(self, name: str, kind: ValueType, load: Callable[[], Array]) -> None:
        """Notes a value that does not depend on the inputs, and how to read it."""
        self.types[name], self.loaders[name] = kind, load

    def add_array(self, name: str, array: Array) -> None:
        """Notes a small constant that is at hand."""
        self.add_constant(name, ValueType(array.shape, str(array.dtype)), lambda: array)

    def is_constant(self, name: str) -> bool:
        """Whether a value does not depend on the inputs."""
        return name in self.loaders

    def content(self, name: str) -> Array | None:
        """The values of a small constant, else None."""
        if name not in self._contents:
            elements = self.types[name].elements if name in self.loaders else None
            if elements is None or elements > SMALL:
                return None
            try:
                self._contents[name] = self.loaders[name]()
            except InputError:  # operands that do not fit their node: then it is not known
                return None
        return self._contents[name]

    def fold(self, node: NodeProto, inputs: Sequence[str]) -> bool:
        """Makes a node's results constants when its operands are; they are computed when somebody reads them."""
        if node.domain not in STANDARD or node.op_type not in FOLDABLE:
            return False
        if node.op_type in ("Shape", "Size"):
            return self._fold_shape(node, inputs)
        operands = [name for name in inputs if name]
        results = [name for name in node.output if name]
        if not results or not all(map(self.is_constant, operands)):
            return False
        # The file's own claims about shapes are not believed here: this is where memory is spent.
        inferred = self.infer_as(node.op_type, inputs, node.output, node.attribute)
        if not inferred.keys() >= set(results):
            return False
        self.types.update(inferred)
        sizes = [self.types[name].elements for name in results]
        limit = max(LARGEST_FOLDED, *(self.types[name].elements or 0 for name in operands), 0)
        if any(size is None or size > limit for size in sizes):
            return False
        for position, name in enumerate(node.output):
            if name:
                self.loaders[name] = self._computing(node, inputs, position)
        if node.op_type in ("Reshape", "Unsqueeze", "Squeeze"):
            self.reshaped[node.output[0]] = self.reshaped.get(inputs[0], inputs[0])
        return True

    def _computing(self, node: NodeProto, inputs: Sequence[str], position: int) -> Callable[[], Array]:
        wanted = self.types[node.output[position]]

        def compute() -> Array:
            # Small contents are kept, so that a long chain of shape arithmetic is computed once.
            contents = [self.content(name) if name else None for name in inputs]
            operands = [
                self.loaders[name]() if name and content is None else content
                for name, content in zip(inputs, contents, strict=True)
            ]
            return evaluate(node, operands, position, wanted.shape, self.opset)

        return compute

    def _fold_shape(self, node: NodeProto, inputs: Sequence[str]) -> bool:
        shape = self.types[inputs[0]].shape if inputs and inputs[0] in self.types else UNKNOWN_RANK
        if None in shape or len(node.output) != 1:
            return False
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        part = shape[slice(bounds.get("start"), bounds.get("end"))]
        content = np.array(math.prod(d for d in shape if d is not None) if node.op_type == "Size" else part, np.int64)
        self.add_array(node.output[0], content)
        return True

    # --- inference ---

    def infer(self, node: NodeProto, inputs: Sequence[str]) -> None:
        """Finds the types of a node's results.

        Args:
            node: the node.
            inputs: what its operands are called now; where that differs from the file, it is inferred afresh.
        """
        renamed = list(inputs) != list(node.input)
        base = {name: self._inferred[name] for name in node.output if name in self._inferred and not renamed}
        known = node.domain in STANDARD and node.op_type in self._operators
        if known and any(name and _is_open(base.get(name)) for name in node.output):
            for name, kind in self.infer_as(node.op_type, inputs, node.output, node.attribute).items():
                base[name] = max(kind, base.get(name, kind), key=_known)
        for name in filter(None, node.output):
            self.types[name] = base.get(name) or self._inferred.get(name) or ValueType(UNKNOWN_RANK, "")

    def infer_as(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Iterable[str],
        attributes: Iterable[onnx.AttributeProto] = (),
    ) -> dict[str, ValueType]:
        """The types that a standard operator would give its results; empty when ONNX cannot tell."""
        node = NodeProto(op_type=op_type, input=inputs, output=outputs)
        node.attribute.extend(attributes)
        with suppress(Exception):  # ONNX raises whatever a node's parts that do not fit together lead to
            schema = defs.get_schema(op_type, self.opset)
            known = {name: _proto_of(self.types[name]) for name in inputs if name}
            data = {name: numpy_helper.from_array(array) for name in inputs if (array := self._data(name)) is not None}
            opsets = [helper.make_opsetid("", self.opset)]
            found = shape_inference.infer_node_outputs(schema, node, known, data, opset_imports=opsets)
            return {name: _type_of(proto) for name, proto in found.items()}
        return {}

    def _data(self, name: str) -> Array | None:
        return self.content(name) if name in self.loaders else None


def _known(kind: ValueType) -> tuple[bool, int, int]:
    """How much a type says: more sizes, then more names."""
    sizes = sum(size is not None for size in kind.shape)
    return kind.shape != UNKNOWN_RANK, sizes, len(kind.symbols)


def _is_open(kind: ValueType | None) -> bool:
    return kind is None or kind.elements is None or not kind.dtype


def _type_of(proto: TypeProto) -> ValueType:
    if not proto.HasField("tensor_type"):
        return ValueType(UNKNOWN_RANK, proto.WhichOneof("value") or "")
    tensor = proto.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or len(dims) > LARGEST_RANK:
        return ValueType(UNKNOWN_RANK, dtype_name(tensor.elem_type))
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in dims]
    # ONNX invents names of this kind for sizes that it cannot work out.
    symbols = tuple("" if dim.dim_param.startswith("unk__") else dim.dim_param for dim in dims)
    return ValueType(tuple(sizes), dtype_name(tensor.elem_type), symbols if any(symbols) else ())


def _proto_of(kind: ValueType) -> TypeProto:
    names = kind.symbols or ("",) * len(kind.shape)
    open_or_size = [name or None if size is None else size for size, name in zip(kind.shape, names, strict=True)]
    shape = None if kind.shape == UNKNOWN_RANK else open_or_size
    return helper.make_tensor_type_proto(ELEMENT_TYPES[kind.dtype], shape)


def _infer_model(model: onnx.ModelProto, operators: frozenset[str]) -> dict[str, ValueType]:
    """What ONNX says about every value; large tensors go in by their type alone.

    Only operators that somebody here reads take part. The inference of others is code that few have ever run: that of
    RegexFullMatch ends the process when an attribute is missing (onnx 1.23.2).
    """
    bare = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    bare.graph.name = "shapes"
    bare.graph.node.extend(node for node in model.graph.node if node.op_type in operators and node.domain in STANDARD)
    for field in ("output", "value_info"):
        getattr(bare.graph, field).extend(getattr(model.graph, field))
    initializers = {tensor.name for tensor in model.graph.initializer}
    bare.graph.input.extend(item for item in model.graph.input if item.name not in initializers)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= SMALL and tensor.data_location != TensorProto.EXTERNAL:
            bare.graph.initializer.append(tensor)
        else:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    with suppress(Exception):  # what it cannot tell is asked again, node by node
        bare = shape_inference.infer_shapes(bare, data_prop=True)
    known = {item.name: _type_of(item.type) for item in (*bare.graph.value_info, *bare.graph.output)}
    return {name: kind for name, kind in known.items() if kind.dtype}
