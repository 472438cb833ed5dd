"""int8 `.tflite`: what LiteRT, Vela (Ethos-U) and Edge TPU's compiler read.

A layer of the plan is one operator on int8 codes with the activation behind it; what the plan keeps in float stands
between DEQUANTIZE and QUANTIZE. Arguments and results are codes where the plan quantizes them, images with their
channels last where convolutions or pools read or make them; `NAME.tflite.provenance.json` says of each tensor which
PyTorch tensor it is and how its axes stand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import Exporter, provenance_file
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.export.tflite_builder import Step, TfliteBuilder, Translator
from bitwright.quant.export.tflite_formats import check_formats
from bitwright.quant.export.tflite_layout import Layout
from bitwright.quant.export.tflite_translators import TRANSLATORS
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.quantized_model import QuantizedModel

SUFFIX = ".tflite"
# Operators that read an image with its channels last; what they read of the network's arguments comes in so.
_ON_IMAGES = frozenset(
    ("conv1d", "conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "prelu")
) | {"upsample_nearest2d", "upsample_bilinear2d"}


def write_tflite(quantized: QuantizedModel, path: Path) -> tuple[Path, ...]:
    """Writes the network and its provenance.

    Raises:
        InputError: what int8 files cannot hold, named with its source lines; nothing is written then.
        MissingExtraError: LiteRT, whose schema is used, is not installed.
    """
    graph = quantized.captured.graph
    check_formats(quantized)
    _check_operators(graph)
    builder = TfliteBuilder(quantized)
    inputs = [builder.take_input(ref, _input_layout(graph, ref)) for ref in graph.inputs]
    for step in steps(quantized, TRANSLATORS):
        TRANSLATORS[step.node.op].write(builder, step)
        builder.finish()
    outputs = [_output(builder, ref, position) for position, ref in enumerate(graph.outputs)]
    content = builder.file.content(inputs, outputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    beside = provenance_file(path)
    beside.write_text(json.dumps(_provenance(builder, outputs), indent=1), encoding="utf-8")
    return path, beside


def steps(quantized: QuantizedModel, translators: dict[str, Translator]) -> list[Step]:
    """The operators to be written, in order, each with the activations that it does along."""
    graph, plan = quantized.captured.graph, quantized.plan
    chains = {chain[0]: chain for chain in plan.fused}
    followers = {name for chain in plan.fused for name in chain[1:]}
    found = []
    for node in graph.nodes:
        if node.name in followers:
            continue
        behind = tuple(graph.by_name[name] for name in chains.get(node.name, (node.name,))[1:])
        in_codes = translators[node.op].in_codes and _has_codes(quantized, node, behind)
        found.append(Step(node=node, followers=behind, in_codes=in_codes))
    return found


def _has_codes(quantized: QuantizedModel, node: Node, followers: tuple[Node, ...]) -> bool:
    """Whether a node is in low precision in the plan, and everything that it reads and makes is in codes."""
    graph, known = quantized.captured.graph, quantized.qparams
    if node.name not in quantized.plan.quantized:
        return False
    bias = graph.layer_positions(node)[2] if graph.is_layer(node) else None
    read = [ref for i, ref in enumerate(node.inputs) if ref is not None and i != bias]
    made = followers[-1].outputs if followers else node.outputs
    return all(ref in known for ref in (*read, *made) if graph.tensors[ref].is_floating)


def _check_operators(graph: Graph) -> None:
    missing = {node.op: node for node in graph.nodes if node.op not in TRANSLATORS}
    lines = [f"  {op} ({node.source or node.module_path or 'no source line'})" for op, node in missing.items()]
    if graph.state:
        lines += [f"  state {before}: a .tflite file has no initial value for it" for before, _ in graph.state]
    if lines:
        raise InputError("no .tflite form for these operators:\n" + "\n".join(lines))


def _input_layout(graph: Graph, ref: TensorRef) -> Layout:
    on_images = any(node.op in _ON_IMAGES and node.inputs[0] == ref for node in graph.consumers[ref])
    return Layout.CHANNELS_LAST if on_images else Layout.PLAIN


def _output(builder: TfliteBuilder, ref: TensorRef, position: int) -> int:
    """A result of the network: of a tensor of its own where it is an argument, a constant or a result already."""
    graph = builder.graph
    made = builder.output_form(ref)
    if ref in graph.producers and ref not in graph.outputs[:position]:
        return made
    return builder.copied(ref, made, position)


def _provenance(builder: TfliteBuilder, outputs: list[int]) -> dict[str, Any]:
    graph, layouts = builder.graph, builder.layouts
    written = {value_name(ref): ref for ref in graph.tensors if value_name(ref) in layouts}
    return {
        "format": "bitwright-provenance/1",
        "values": {name: str(ref) for name, ref in written.items()},
        "layouts": {name: str(layouts[name]) for name in written},
        "sources": {value_name(n.outputs[0]): str(n.source) for n in graph.nodes if n.source and n.outputs},
        "operators": {
            value_name(n.outputs[0]): {"name": n.name, "op": n.op, "module_type": n.module_type}
            for n in graph.nodes
            if n.outputs
        },
        "state": [],
        "outputs": [builder.file.name_of(index) for index in outputs],
    }


EXPORTER = Exporter(title="int8 TensorFlow Lite", suffix=SUFFIX, write=write_tflite)
