"""The torch-free `Graph` of a captured network."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.fx

from bitwright.quant.fx_nodes import KIND, MODULE, REF, SOURCE, operator_type, ref_of
from bitwright.quant.graph import Graph, Node, SourceLine, TensorInfo, TensorKind, TensorRef

if TYPE_CHECKING:
    from bitwright.quant.captured_model import CapturedModel


def describe(captured: CapturedModel) -> Graph:
    """The same network without torch; parameters stay where they are and are read when asked for."""
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
    outgoing: Any = captured.fx_graph.output_node().args[0]
    results = [ref_of(node) for node in outgoing]
    count = len(captured.state_names)
    by_name = {n.name: n.meta[REF][0] for n in captured.fx_graph.nodes if n.op == "placeholder"}

    def load(ref: TensorRef) -> npt.NDArray[Any]:
        tensor = captured.values[captured.value_refs[ref]].detach().cpu()
        return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else np.asarray(tensor.numpy())

    return Graph(
        nodes=tuple(nodes),
        tensors=tensors,
        inputs=tuple(n.meta[REF][0] for n in captured.input_nodes if isinstance(n.meta["val"], torch.Tensor)),
        outputs=tuple(ref for ref in results[count:] if ref is not None),
        state=tuple(
            (by_name[name], ref) for name, ref in zip(captured.state_names, results[:count], strict=True) if ref
        ),
        load=load,
    )


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
