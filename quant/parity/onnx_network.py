"""An ONNX file as a link sees it: which tensors it has, with more of them as outputs, or cut open at some.

A tensor in codes is known by what its Q reads (`X`) and shown by what its Q writes: making codes an output leaves
`Q` fused to the layer before it, as the deployed file has it; making `X` itself one would not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from bitwright.quant.formats import FORMATS, IntFormat
from bitwright.quant.integer.codes import Grid, quantized
from bitwright.quant.onnx_import.origins import base_name, read_provenance
from bitwright.quant.onnx_import.reading import read_model
from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.nudge import Nudge
from bitwright.quant.parity.onnx_rounding import rounding_of_node, weight_noise_of_node
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import array_arguments

GIVEN = "given "  # in front of the name of an input that stands for a tensor's value


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """How a tensor is shown: the value to fetch, the codes that it is in, the value that these were rounded from."""

    value: str
    grid: Grid | None = None
    unrounded: str = ""


class OnnxNetwork:
    """A file, read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = read_model(path)
        if any(t.data_location == onnx.TensorProto.EXTERNAL for t in self.model.graph.initializer):
            onnx.load_external_data_for_model(self.model, str(path.parent))
        self._provenance = read_provenance(path) if self.is_own else {}

    @property
    def is_own(self) -> bool:
        """Whether Bitwright wrote it, so that values are named by their references."""
        return bool(self.model.producer_name == "bitwright")

    @cached_property
    def _initializers(self) -> dict[str, onnx.TensorProto]:
        return {each.name: each for each in self.model.graph.initializer}

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """The node that writes each value."""
        return {value: node for node in self.model.graph.node for value in node.output if value}

    @cached_property
    def constants(self) -> frozenset[str]:
        """Values that do not hang on the inputs."""
        found = set(self._initializers) - {each.name for each in self.model.graph.input}
        for node in self.model.graph.node:
            if not node.op_type.startswith("Random") and all(name in found or not name for name in node.input):
                found.update(node.output)
        return frozenset(found)

    @cached_property
    def shown(self) -> Mapping[str, Shown]:
        """Every tensor by its name, in the order of the file."""
        return {name: shown for name, shown in self._walk() if name}

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """The same for reports and for joining."""
        types = {each.name: each for each in self._inferred}

        def shape_of(value: str) -> tuple[int | None, ...] | None:
            stored = self._initializers.get(value)
            return _shape(types.get(value)) if stored is None else tuple(stored.dims)

        found = {}
        for name, shown in self.shown.items():
            maker = self._maker(name, shown)
            facts = self._facts(name)
            reads, makers = self._way(maker)
            found[name] = LinkTensor(
                name=name,
                op=facts.get("op", maker.op_type if maker is not None else ""),
                reads=reads,
                shape=_shape(types.get(shown.value)),
                grid=shown.grid,
                rounding=max(
                    (rounding_of_node(each, shape_of) for each in makers), key=lambda each: each.expected, default=None
                ),
                weight_noise=sum(weight_noise_of_node(each, self.producers, self._initializers) for each in makers),
                module_path=name.rpartition("@")[0] if self.is_own else "",
                source=str(self._provenance.get("sources", {}).get(name, "")) if self.is_own else "",
            )
        return found

    def with_outputs(self, wanted: Collection[str], *, unrounded: bool = False) -> onnx.ModelProto:
        """The file with these tensors as outputs as well, and with what codes are rounded from where that is asked for.

        The latter undoes the fusions of a runtime.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        _add_outputs(model, self._fetched(wanted, unrounded=unrounded))
        return model

    def _fetched(self, wanted: Collection[str], *, unrounded: bool) -> list[str]:
        shown = [self.shown[name] for name in wanted]
        return [each.value for each in shown] + [each.unrounded for each in shown if unrounded and each.unrounded]

    def cut(self, given: Collection[str], wanted: Collection[str], *, unrounded: bool = False) -> onnx.ModelProto:
        """The file in which what reads these tensors gets them from new inputs, `given ` in front of their values.

        What no wanted tensor hangs on is left out, results among it. See `with_outputs`.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        inputs = {each.name for each in model.graph.input}
        values = [self.shown[name].value for name in given]
        renamed = {value: f"{GIVEN}{value}" for value in values if value not in inputs}
        kinds = {each.name: each for each in self._inferred}
        for node in model.graph.node:
            for place, value in enumerate(node.input):
                if value in renamed:
                    node.input[place] = renamed[value]
        model.graph.input.extend(_typed(name, kinds.get(value)) for value, name in renamed.items())
        model.graph.ClearField("output")
        _add_outputs(model, self._fetched(wanted, unrounded=unrounded))
        drop_dead(model)
        return model

    def feeds(self, inputs: Inputs, given: Mapping[str, Array], *, nudge: bool = False) -> dict[str, Array]:
        """What a file, cut at `given`, is fed: tensors are in codes where the file has codes.

        Raises:
            LinkError: the data have another number of tensors than the file has inputs.
        """
        shake = Nudge(on=nudge)
        arguments = self._arguments(shake.inputs(inputs))
        arguments |= {name: value for name, value in inputs.state.items() if name in self.state}
        for name, values in given.items():
            value, stored = self.shown[name].value, self._stored(name, shake.array(values))
            arguments[value if value in arguments else f"{GIVEN}{value}"] = stored
        return arguments

    def _arguments(self, inputs: Inputs) -> dict[str, Array]:
        """The user's arguments under the names of the file's inputs; the state starts from its default."""
        arrays = array_arguments(inputs)
        names = [each.name for each in self.model.graph.input if each.name not in self._initializers]
        if len(names) != len(arrays):
            raise LinkError(
                f"{self.path}: takes {len(names)} tensors ({', '.join(names)}); the data have {len(arrays)}"
            )
        return dict(zip(names, arrays, strict=True))

    def recording(self, results: Mapping[str, Array], wanted: Collection[str]) -> Recording:
        """What a run gave, codes as real values."""
        carried = set(self.state.values())
        names = [each.name for each in self.model.graph.output if each.name not in carried]
        outputs = {name: results[name] for name in names if name in results}
        found = {}
        for name in wanted:
            shown = self.shown[name]
            values = results[shown.value]
            found[name] = values if shown.grid is None else shown.grid.real(values)
        unrounded = {name: results[v] for name in wanted if (v := self.shown[name].unrounded) in results}
        after = {before: results[after] for before, after in self.state.items() if after in results}
        return Recording(outputs=outputs, tensors=found, unrounded=unrounded, state=after)

    @cached_property
    def state(self) -> Mapping[str, str]:
        """What the file remembers: the output that goes there at the next call, by the name of the input."""
        return {each["input"]: each["output"] for each in self._provenance.get("state", [])}

    def _stored(self, name: str, value: Array) -> Array:
        shown = self.shown[name]
        if shown.grid is None:
            return value
        dtype = np.dtype(("" if shown.grid.format.signed else "u") + f"int{max(8, shown.grid.format.bits)}")
        return quantized(value, shown.grid).astype(dtype)

    def _walk(self) -> Iterator[tuple[str, Shown]]:
        coded = {name: shown for name, shown in self._coded()}
        inside = {shown.value for shown in coded.values()}
        made = {value for node in self.model.graph.node for value in node.output}
        yield from ((name, shown) for name, shown in coded.items() if name not in made)
        real = (each for each in self.model.graph.input if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)
        yield from ((i.name, Shown(value=i.name)) for i in real if i.name not in {*coded, *self._initializers})
        for node in self.model.graph.node:
            for value in node.output:
                if value in coded:
                    yield value, coded[value]
                elif value in inside or value in self.constants or node.op_type == "DequantizeLinear":
                    continue
                elif not (self.is_own and (base_name(value) != value)):
                    yield value, Shown(value=value)

    def _coded(self) -> Iterator[tuple[str, Shown]]:
        """By the scale of the DQ: it is what readers see."""
        dequantizers = {n.input[0]: n for n in self.model.graph.node if n.op_type == "DequantizeLinear"}
        for node in self.model.graph.node:
            if node.op_type == "QuantizeLinear" and node.input[0] not in self.constants:
                grid = self._grid(dequantizers.get(node.output[0], node))
                name = base_name(node.input[0]) if self.is_own else node.input[0]
                if grid is not None:
                    yield name, Shown(value=node.output[0], grid=grid, unrounded=node.input[0])

    def _grid(self, node: NodeProto) -> Grid | None:
        """The codes of a Q with one scale; None for others."""
        parts = [self._initializers.get(name) for name in node.input[1:]]
        if not parts or any(part is None for part in parts):
            return None
        arrays = [numpy_helper.to_array(part) for part in parts if part is not None]
        dtype = str(arrays[1].dtype) if len(arrays) > 1 else "uint8"
        fmt = FORMATS.get(dtype)
        if not isinstance(fmt, IntFormat) or fmt.bits not in (8, 16) or arrays[0].size != 1:
            return None
        return Grid(format=fmt, scale=arrays[0].reshape(()), zero_point=int(arrays[1].flat[0]) if arrays[1:] else 0)

    def _maker(self, name: str, shown: Shown) -> NodeProto | None:
        maker = self.producers.get(name, self.producers.get(shown.value))
        while maker is not None and maker.op_type in ("QuantizeLinear", "Clip") and shown.grid is not None:
            before = self.producers.get(maker.input[0])
            if before is None:
                break
            maker = before
        return maker

    def _way(self, maker: NodeProto | None) -> tuple[tuple[str, ...], list[NodeProto]]:
        """The shown tensors that a node hangs on, and the nodes from them to it, itself included."""
        found: dict[str, None] = {}
        nodes = [maker] if maker is not None else []
        waiting = list(maker.input) if maker is not None else []
        while waiting:
            value = waiting.pop(0)
            if value in self._names:
                found[self._names[value]] = None
            elif value not in self.constants and (before := self.producers.get(value)) is not None:
                nodes.append(before)
                waiting += before.input
        return tuple(found), nodes

    @cached_property
    def _names(self) -> dict[str, str]:
        """The tensor of each value that shows one, or that has its name."""
        return {value: name for name, shown in self.shown.items() for value in (shown.value, name)}

    def _facts(self, name: str) -> Mapping[str, str]:
        facts = self._provenance.get("operators", {}).get(name, {}) if self.is_own else {}
        return facts if isinstance(facts, dict) else {}

    @cached_property
    def _inferred(self) -> list[onnx.ValueInfoProto]:
        """Types of values, as far as ONNX's own inference finds them."""
        graph = onnx.shape_inference.infer_shapes(self.model).graph
        return [*graph.input, *graph.output, *graph.value_info]


def _typed(name: str, info: onnx.ValueInfoProto | None) -> onnx.ValueInfoProto:
    new = onnx.ValueInfoProto()
    if info is not None:
        new.CopyFrom(info)
    new.name = name
    return new


def _add_outputs(model: onnx.ModelProto, values: Collection[str]) -> None:
    present = {each.name for each in model.graph.output}
    model.graph.output.extend(helper.make_empty_tensor_value_info(v) for v in dict.fromkeys(values) if v not in present)


def drop_dead(model: onnx.ModelProto) -> None:
    """Takes out nodes, inputs and initializers that no output hangs on."""
    alive = {each.name for each in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if alive.intersection(node.output):
            alive.update(node.input)
            alive.update(_captured(node))
            kept.append(node)
    for field, items in (
        ("node", kept[::-1]),
        ("initializer", [each for each in model.graph.initializer if each.name in alive]),
        ("input", [each for each in model.graph.input if each.name in alive]),
    ):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(items)


def _captured(node: NodeProto) -> Iterator[str]:
    """Names that graphs inside a node (If, Loop) may read from around it."""
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from each.input
                yield from _captured(each)


def _shape(info: onnx.ValueInfoProto | None) -> tuple[int | None, ...] | None:
    if info is None or not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim)
