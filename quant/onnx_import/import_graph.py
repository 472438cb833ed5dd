"""An ONNX file as the graph that capture would have given for the same network."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.onnx_import.agreement import check_inputs, check_operands
from bitwright.quant.onnx_import.assemble import assemble
from bitwright.quant.onnx_import.beside import (
    codings_beside,
    note_constants,
    note_results,
    with_biases,
    with_moved_codes,
)
from bitwright.quant.onnx_import.calls import Draft
from bitwright.quant.onnx_import.fitting import keep_misfits
from bitwright.quant.onnx_import.network import Network
from bitwright.quant.onnx_import.origins import origins_of, read_provenance
from bitwright.quant.onnx_import.patterns.registry import fuse_patterns
from bitwright.quant.onnx_import.patterns.whole_operators import compose_whole_operators
from bitwright.quant.onnx_import.plan_of_file import plan_of_file
from bitwright.quant.onnx_import.qparams import ImportedQParams
from bitwright.quant.onnx_import.read_node import read_node
from bitwright.quant.onnx_import.readers.registry import READERS
from bitwright.quant.onnx_import.reading import read_model
from bitwright.quant.onnx_import.spelling import spell
from bitwright.quant.onnx_import.structure import ordered_nodes
from bitwright.quant.onnx_import.values import Values
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.scheme import QuantScheme

for _module in ("activations", "attention", "dense", "normalization", "promotion"):
    importlib.import_module(f"bitwright.quant.onnx_import.patterns.{_module}")


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportedModel:
    """What an ONNX file says.

    Attributes:
        graph: the float network, with ATen's operators; those that have no such name keep ONNX's.
        plan: which tensors and nodes are in low precision, as the file has it; None for a file in float. An operator
            between codes counts, though a runtime may have no such kernel: `plan_by` asks a scheme about that.
        qparams: how each of them is coded.
        kept: why nodes were kept as ONNX has them, by the node's name.
        name: of the file, for messages.
        has_own_codes: whether the file itself holds codes; else it is in float, and `qparams` stand beside it.
    """

    graph: Graph
    plan: QuantPlan | None
    qparams: Mapping[TensorRef, ImportedQParams]
    kept: Mapping[str, str]
    name: str = ""
    has_own_codes: bool = False

    def plan_by(self, scheme: QuantScheme) -> QuantPlan:
        """The plan on a target: what the file has in low precision and the target runs so, else the scheme's own."""
        if not self.qparams:
            return plan(self.graph, scheme)
        return plan_of_file(self.graph, self.qparams, self.name, scheme)


def graph_from_onnx(path: str | Path) -> ImportedModel:
    """Reads an ONNX file: float, with Q/DQ, with integer operators, or in float with its scales in a file beside it.

    Weights are kept by reference and made into arrays when `Graph.array` asks for them; those beside the file are read
    then. Open dimensions are None. Operators that
    are unknown, of a foreign domain or made of other graphs (If, Loop, Scan) are nodes with their ONNX name.

    Args:
        path: the `.onnx` file; `NAME.provenance.json` beside it gives references and source lines back, and
            `NAME.encodings` or `NAME.calib.cache` says how the tensors of a float file are coded.

    Raises:
        InputError: no such file, no ONNX model, a broken one, or one that this release cannot read.
    """
    path = Path(path)
    model = read_model(path)
    nodes = ordered_nodes(model.graph, str(path))
    values = Values(model, path, frozenset(READERS))
    check_inputs(model.graph, values, str(path))
    draft = Draft(values, is_own=model.producer_name == "bitwright")
    codings = codings_beside(path, model, values)
    if codings is not None:
        note_constants(draft, codings, model)
    state = _state(model, path) if draft.is_own else {}
    initial = {name: values.loaders.pop(name) for name in state}
    for node in nodes:
        check_operands(values, node, [draft.resolve(name) for name in node.input], str(path))
        read_node(draft, node)
    if codings is not None:
        note_results(draft, codings, model)
    origins = origins_of(model, path)
    results = {item.name: draft.resolve(item.name) for item in model.graph.output}
    network = Network(draft, origins, results.values())
    network.drop_unused()
    compose_whole_operators(network)
    fuse_patterns(network)
    spell(network)
    keep_misfits(network)
    network.drop_unused()
    initializers = {tensor.name for tensor in model.graph.initializer} - state.keys()
    graph, references = assemble(
        network,
        origins,
        inputs=[i.name for i in model.graph.input if i.name not in initializers and i.name not in state],
        outputs=[results[item.name] for item in model.graph.output if item.name not in state.values()],
        state={before: (results[after], initial[before]) for before, after in state.items()},
    )
    qparams = {references[name]: known for name, known in draft.qparams.items() if name in references}
    if codings is not None and not draft.is_own:
        qparams = with_moved_codes(graph, qparams)
    if codings is not None and codings.int32_biases:
        qparams = with_biases(graph, qparams)
    kept = {node.name: draft.kept[name] for name, ref in references.items() if name in draft.kept
            for node in [graph.producers[ref]]}  # fmt: skip
    return ImportedModel(
        graph=graph,
        plan=plan_of_file(graph, qparams, path.name) if qparams else None,
        qparams=qparams,
        kept=kept,
        name=path.name,
        has_own_codes=bool(qparams) and codings is None,
    )


def _state(model: onnx.ModelProto, path: Path) -> dict[str, str]:
    """Buffers that forward mutates: our own files name their incoming and outgoing values."""
    entering = {item.name for item in model.graph.input} & {tensor.name for tensor in model.graph.initializer}
    leaving = {item.name for item in model.graph.output}
    pairs = read_provenance(path).get("state")
    found: dict[str, str] = {}
    for pair in pairs if isinstance(pairs, list) else ():
        before, after = (pair.get("input"), pair.get("output")) if isinstance(pair, dict) else (None, None)
        if isinstance(before, str) and isinstance(after, str) and before in entering and after in leaving:
            found[before] = after
    return found
