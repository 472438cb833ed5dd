"""Runs a graph by ATen's own operators, so that what a reader says an ONNX node is can be held against ONNX Runtime."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bitwright.quant.graph import Graph, Node

_DTYPES = {"dtype"}


def run_graph(graph: Graph, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The results for inputs by name (without the `$` of their references)."""
    values = {ref: torch.from_numpy(np.array(feeds[ref.module_path[1:]])) for ref in graph.inputs}
    for node in graph.nodes:
        for ref in node.tensors:
            if ref not in values:
                values[ref] = torch.from_numpy(np.array(graph.array(ref)))
        results = _call(node, [None if ref is None else values[ref] for ref in node.inputs])
        parts = results if isinstance(results, list | tuple) else [results]
        for ref, part in zip(node.outputs, parts, strict=False):
            info = graph.tensors[ref]
            expected = tuple(
                size if size is not None else have for size, have in zip(info.shape, part.shape, strict=True)
            )
            assert tuple(part.shape) == expected, f"{node.name}: {tuple(part.shape)}, the graph says {info.shape}"
            assert str(part.dtype) == f"torch.{info.dtype}", f"{node.name}: {part.dtype}, the graph says {info.dtype}"
            values[ref] = part
    for ref in graph.outputs:
        if ref not in values:
            values[ref] = torch.from_numpy(np.array(graph.array(ref)))
    return [values[ref].numpy() for ref in graph.outputs]


def _call(node: Node, operands: list[torch.Tensor | None]) -> Any:
    packet = getattr(torch.ops.aten, node.op)
    attributes = {name: _python(name, value) for name, value in node.attributes.items()}
    problems = []
    for name in packet.overloads():
        overload = getattr(packet, name)
        arguments = _arguments(overload._schema.arguments, list(operands), dict(attributes))
        if arguments is None:
            continue
        try:
            return overload(**arguments)
        except (RuntimeError, TypeError) as error:
            problems.append(f"{name}: {error}")
    raise AssertionError(f"{node.op}{attributes} fits no overload: {problems}")


def _arguments(schema: Any, operands: list[Any], attributes: dict[str, Any]) -> dict[str, Any] | None:
    """Every argument by name; None when the overload takes others."""
    found: dict[str, Any] = {}
    for argument in schema:
        kind = str(argument.type)
        if "out" in argument.name and argument.kwarg_only and "Tensor" in kind:
            return None
        if "List[Tensor" in kind or "List[Optional[Tensor" in kind:
            found[argument.name], operands = operands, []
        elif "Tensor" in kind and operands:
            operand = operands.pop(0)
            if operand is None and argument.name in attributes:
                operand = torch.tensor(attributes.pop(argument.name))
            found[argument.name] = operand
        elif argument.name in attributes:
            found[argument.name] = attributes.pop(argument.name)
        elif not argument.has_default_value():
            return None
    return None if attributes or any(operand is not None for operand in operands) else found


def _python(name: str, value: Any) -> Any:
    if name in _DTYPES and isinstance(value, str):
        return getattr(torch, value)
    return list(value) if isinstance(value, tuple) else value
