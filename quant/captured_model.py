"""A captured network: a functional ATen graph that can be run, looked at, observed and rewritten."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.fx
import torch.utils._pytree as pytree

from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph, Node, SourceLine, TensorInfo, TensorKind, TensorRef

REF = "bitwright_ref"
KIND = "bitwright_kind"
SOURCE = "bitwright_source"
MODULE = "bitwright_module"

Transform = Callable[[TensorRef, torch.Tensor], torch.Tensor]

# torch's internal spellings of operators that the user called by another name.
_CANONICAL = {"_native_batch_norm_legit_no_training": "batch_norm", "_softmax": "softmax", "convolution": "conv"}


@dataclass(frozen=True, kw_only=True, eq=False)
class CapturedModel:
    """A network as `torch.export` sees it, with identities, and with its parameters lifted to arguments.

    Attributes:
        fx_graph: functional ATen operators; placeholders are the values' names, then the inputs. Every node that
            makes a tensor carries its `TensorRef` in `meta`.
        values: parameters, buffers, constants and the initial state, by placeholder name.
        in_spec: how the user's `(args, kwargs)` flatten into the inputs.
        out_spec: how the outputs unflatten into what the user's `forward` returned.
        replaced: tensors that rewrites have removed, and what stands for each now.
    """

    fx_graph: torch.fx.Graph
    values: Mapping[str, torch.Tensor]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    replaced: Mapping[TensorRef, TensorRef] = field(default_factory=dict)

    @cached_property
    def graph(self) -> Graph:
        """The same network, torch-free."""
        return _describe(self)

    @cached_property
    def state_names(self) -> tuple[str, ...]:
        """Placeholders of the buffers that forward mutates, in the order of the outgoing state."""
        return tuple(self._output.meta["bitwright_state"])

    @cached_property
    def value_refs(self) -> dict[TensorRef, str]:
        """The placeholder of each parameter, buffer and constant."""
        return {n.meta[REF][0]: n.name for n in self.fx_graph.nodes if n.op == "placeholder" and n.name in self.values}

    def initial_state(self) -> dict[str, torch.Tensor]:
        """A fresh copy of the buffers that forward mutates, as they were at capture."""
        return {name: self.values[name].clone() for name in self.state_names}

    @torch.no_grad()
    def run(
        self,
        *args: Any,
        state: dict[str, torch.Tensor] | None = None,
        transform: Transform | None = None,
        values: Mapping[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Runs the network on the user's own arguments and returns what their `forward` would.

        Args:
            *args: positional arguments of `forward`.
            state: mutated buffers; updated in place. None starts from the captured state and forgets it.
            transform: called with each input and each operator result; what it returns is passed on.
            values: parameters to use in place of the captured ones, by placeholder name.
            **kwargs: keyword arguments of `forward`.

        Raises:
            InputError: the arguments have another structure or other shapes than those it was captured with.
        """
        inputs = self.flatten(args, kwargs)
        own = {**self.values, **(values or {}), **(state if state is not None else self.initial_state())}
        keep = transform or (lambda ref, tensor: tensor)
        environment: dict[torch.fx.Node, Any] = {}
        for node, dead in self._steps:
            if node.op == "placeholder":
                ref = node.meta[REF][0]
                environment[node] = own[node.name] if node.name in own else keep(ref, next(inputs))
            else:
                arguments = torch.fx.node.map_arg(node.args, environment.__getitem__)
                keywords = torch.fx.node.map_arg(node.kwargs, environment.__getitem__)
                result = node.target(*arguments, **keywords)  # type: ignore[operator]
                refs = node.meta[REF]
                if not refs:
                    pass
                elif isinstance(result, torch.Tensor):
                    result = keep(refs[0], result)
                elif isinstance(result, list | tuple):
                    result = [keep(ref, part) if ref else part for ref, part in zip(refs, result, strict=True)]
                environment[node] = result
            for spent in dead:
                del environment[spent]
        results: Any = torch.fx.node.map_arg(self._output.args[0], environment.__getitem__)
        count = len(self.state_names)
        if state is not None:
            state.update(zip(self.state_names, results[:count], strict=True))
        return pytree.tree_unflatten(list(results[count:]), self.out_spec)

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
        """The user's arguments as a flat sequence of tensors, checked against the captured ones.

        Raises:
            InputError: another structure, shape or type than at capture.
        """
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if spec != self.in_spec:
            raise InputError(f"arguments have the structure {spec}; the model was captured with {self.in_spec}")
        for node, leaf in zip(self._inputs, leaves, strict=True):
            expected = node.meta["val"]
            if not isinstance(expected, torch.Tensor):
                continue
            if tuple(leaf.shape) != tuple(expected.shape) or leaf.dtype != expected.dtype:
                raise InputError(
                    f"input {node.meta[REF][0]}: got {_spell(leaf)}; the model was captured with {_spell(expected)}"
                )
        return iter(leaves)

    def outputs(self, results: Any) -> list[torch.Tensor]:
        """What `run` returned as a flat list of tensors, in the order of `graph.outputs`."""
        return [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]

    @cached_property
    def _inputs(self) -> list[torch.fx.Node]:
        return [n for n in self.fx_graph.nodes if n.op == "placeholder" and n.name not in self.values]

    @cached_property
    def _output(self) -> torch.fx.Node:
        return self.fx_graph.output_node()

    @cached_property
    def _steps(self) -> list[tuple[torch.fx.Node, list[torch.fx.Node]]]:
        """Each node with those whose last reader it is, so that memory is given back in time."""
        last: dict[torch.fx.Node, torch.fx.Node] = {}
        for node in self.fx_graph.nodes:
            for operand in node.all_input_nodes:
                last[operand] = node
        dead: dict[torch.fx.Node, list[torch.fx.Node]] = {}
        for operand, reader in last.items():
            dead.setdefault(reader, []).append(operand)
        return [(node, dead.get(node, [])) for node in self.fx_graph.nodes if node.op != "output"]


def _spell(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def operator_type(node: torch.fx.Node) -> str:
    """ATen's base name of what a node calls, in functional form; "" for plumbing such as getitem."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return ""
    name: str = schema.name.split("::")[1]
    return _CANONICAL.get(name, name.rstrip("_") if not name.startswith("__") else name)


def _describe(captured: CapturedModel) -> Graph:
    tensors: dict[TensorRef, TensorInfo] = {}
    nodes: list[Node] = []
    for fx_node in captured.fx_graph.nodes:
        if fx_node.op == "placeholder":
            ref = fx_node.meta[REF][0]
            tensors[ref] = _info(ref, fx_node.meta["val"], fx_node.meta[KIND])
        elif fx_node.op == "call_function" and fx_node.target is not operator.getitem:
            value = fx_node.meta["val"]
            for ref, part in zip(fx_node.meta[REF], value if isinstance(value, list | tuple) else [value], strict=True):
                if ref is not None:
                    tensors[ref] = _info(ref, part, TensorKind.ACTIVATION)
            nodes.append(_node(fx_node))
    outgoing: Any = captured._output.args[0]
    results = [ref_of(node) for node in outgoing]
    count = len(captured.state_names)
    by_name = {n.name: n.meta[REF][0] for n in captured.fx_graph.nodes if n.op == "placeholder"}

    def load(ref: TensorRef) -> npt.NDArray[Any]:
        tensor = captured.values[captured.value_refs[ref]].detach().cpu()
        return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else np.asarray(tensor.numpy())

    return Graph(
        nodes=tuple(nodes),
        tensors=tensors,
        inputs=tuple(n.meta[REF][0] for n in captured._inputs if isinstance(n.meta["val"], torch.Tensor)),
        outputs=tuple(ref for ref in results[count:] if ref is not None),
        state=tuple(
            (by_name[name], ref) for name, ref in zip(captured.state_names, results[:count], strict=True) if ref
        ),
        load=load,
    )


def ref_of(value: Any) -> TensorRef | None:
    """The tensor that an argument of a node stands for."""
    if not isinstance(value, torch.fx.Node):
        return None
    if value.target is operator.getitem:
        arguments: Any = value.args
        return arguments[0].meta[REF][arguments[1]]  # type: ignore[no-any-return]
    return value.meta[REF][0]  # type: ignore[no-any-return]


def _info(ref: TensorRef, value: Any, kind: TensorKind) -> TensorInfo:
    if not isinstance(value, torch.Tensor):
        return TensorInfo(ref=ref, shape=(), dtype=type(value).__name__, kind=kind)
    shape = tuple(int(d) if isinstance(d, int) else None for d in value.shape)
    return TensorInfo(ref=ref, shape=shape, dtype=str(value.dtype).removeprefix("torch."), kind=kind)


def _node(fx_node: torch.fx.Node) -> Node:
    inputs: list[TensorRef | None] = []
    attributes: dict[str, Any] = {}
    schema = getattr(fx_node.target, "_schema", None)
    arguments = schema.arguments if schema else []
    for position, argument in enumerate(arguments):
        given: Any = (
            fx_node.args[position]
            if position < len(fx_node.args)
            else fx_node.kwargs.get(argument.name, argument.default_value)
        )
        kind = str(argument.type)
        if "Tensor" not in kind:
            attributes[argument.name] = _attribute(given)
        elif "List" in kind:
            inputs.extend(ref_of(item) for item in given or ())
        else:
            inputs.append(ref_of(given))
            if given is not None and not isinstance(given, torch.fx.Node):
                attributes[argument.name] = given
    path, module_type = fx_node.meta[MODULE]
    source: SourceLine | None = fx_node.meta[SOURCE]
    return Node(
        name=fx_node.name,
        op=operator_type(fx_node) or str(getattr(fx_node.target, "__name__", fx_node.target)),
        inputs=tuple(inputs),
        outputs=tuple(ref for ref in fx_node.meta[REF] if ref is not None),
        attributes=attributes,
        module_path=path,
        module_type=module_type,
        source=source,
    )


def _attribute(value: Any) -> Any:
    if isinstance(value, torch.fx.Node):
        return f"<{value.name}>"  # a size that is only known when the network runs
    if isinstance(value, list | tuple):
        return tuple(_attribute(item) for item in value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.memory_format | torch.layout | torch.device):
        return str(value)
    return value
