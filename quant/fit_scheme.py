"""What is rewritten of a network before it is quantized, so that a scheme finds operators that it knows."""

from __future__ import annotations

import numpy as np

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import Graph, Node
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.passes.write_out_attention import write_out_attention
from bitwright.quant.passes.write_out_recurrence import write_out_recurrence
from bitwright.quant.rewrite import Refused
from bitwright.quant.scheme import QuantScheme

_ATTENTION = "scaled_dot_product_attention"
_ITS_PRODUCT = "matmul"
_MASK = 3  # its position among the operands
_RECURRENT = ("lstm", "gru", "lstm_cell", "gru_cell")


def fit_scheme(captured: CapturedModel, scheme: QuantScheme, *, trains_on: bool = False) -> CapturedModel:
    """Folds batch norms; writes out what the scheme has in low precision in its parts but not itself.

    Those are recurrent layers, for their linear ones, and attention, for its products. What cannot be written
    out, what an override keeps in float, and attention whose mask holds infinities, which no code stands for, stays one
    operator; the plan then says that it is in float.

    Args:
        captured: the network as it was captured.
        scheme: what the target asks for.
        trains_on: see `fold_batch_norm`.
    """
    prepared = _with_steps(fold_batch_norm(captured, trains_on=trains_on), scheme)
    known = scheme.quantized_operators
    if _ITS_PRODUCT not in known or _ATTENTION in known:
        return prepared
    for node in prepared.graph.nodes:
        if node.op == _ATTENTION and _has_finite_mask(prepared.graph, node) and not _is_kept_float(node, scheme):
            rewritten = write_out_attention(prepared, node.name)
            prepared = prepared if isinstance(rewritten, Refused) else rewritten
    return prepared


def _with_steps(captured: CapturedModel, scheme: QuantScheme) -> CapturedModel:
    """Recurrent layers as their steps where a step's layers run in low precision and the whole does not."""
    known = scheme.quantized_operators
    for node in captured.graph.nodes if "linear" in known else ():
        if node.op in _RECURRENT and node.op not in known and not _is_kept_float(node, scheme):
            rewritten = write_out_recurrence(captured, node.name)
            captured = captured if isinstance(rewritten, Refused) else rewritten
    return captured


def _has_finite_mask(graph: Graph, node: Node) -> bool:
    """Whether what is added to the scores, if anything, is known to be finite."""
    if node.attributes.get("is_causal"):
        return False
    mask = node.inputs[_MASK] if len(node.inputs) > _MASK else None
    if mask is None:
        return True
    values = graph.array(mask) if graph.is_constant(mask) and graph.load is not None else None
    return values is not None and values.dtype != bool and bool(np.isfinite(values).all())


def _is_kept_float(node: Node, scheme: QuantScheme) -> bool:
    override = scheme.override_for(module_path=node.module_path, operator=node.op)
    return override is not None and override.keep_float
