"""One operator where a runtime has one of its own.

ONNX Runtime turns `x * sigmoid(x)` into its QuickGelu, but not behind a DequantizeLinear: it gives each reader a
DequantizeLinear of its own first, and the two operands are two values then (1.31.1; on an EfficientNet-B0 in int8 that
costs a quarter of the time). Written as `com.microsoft.QuickGelu` it stays one operator.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QuickGelu
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, helper, shape_inference

# Which runtimes read such a file.
RUNTIMES = frozenset({"onnxruntime"})
_DOMAIN, _VERSION = "com.microsoft", 1


def spell_silu(path: Path) -> int:
    """Rewrites a file in place; returns how many SiLUs it had."""
    model = onnx.load(str(path))
    count = fuse_silu(model)
    if count:
        onnx.save(model, str(path))
    return count


def fuse_silu(model: ModelProto) -> int:
    """Replaces `Mul(x, Sigmoid(x))` by QuickGelu with alpha = 1 where nothing else reads the Sigmoid; counts them."""
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, int] = {}
    for name in [each for node in model.graph.node for each in node.input] + [out.name for out in model.graph.output]:
        readers[name] = readers.get(name, 0) + 1
    kept: list[NodeProto] = []
    gone: set[str] = set()
    fused = []
    for node in model.graph.node:
        gate = _gate(node, makers)
        if gate is None or readers[gate.output[0]] != 1:
            kept.append(node)
            continue
        gone.add(gate.output[0])
        fused.append(node.output[0])
        one = helper.make_node(
            "QuickGelu", [gate.input[0]], list(node.output), name=node.name, domain=_DOMAIN, alpha=1.0
        )
        kept.append(one)
    if fused:
        _keep_shapes(model, fused)
        del model.graph.node[:]
        model.graph.node.extend(node for node in kept if not gone.intersection(node.output))
        model.opset_import.append(helper.make_opsetid(_DOMAIN, _VERSION))
    return len(fused)


def _gate(node: NodeProto, makers: dict[str, NodeProto]) -> NodeProto | None:
    """The Sigmoid of the other operand."""
    if node.op_type != "Mul":
        return None
    for data, gated in (tuple(node.input), tuple(node.input)[::-1]):
        gate = makers.get(gated)
        if gate is not None and gate.op_type == "Sigmoid" and gate.input[0] == data:
            return gate
    return None


def _keep_shapes(model: ModelProto, values: list[str]) -> None:
    """Writes down shapes that ONNX cannot infer through an operator of another domain."""
    inferred = shape_inference.infer_shapes(model)
    model.graph.value_info.extend(item for item in inferred.graph.value_info if item.name in values)
