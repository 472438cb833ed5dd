"""Writes attention as what it is made of: `softmax(q k^T / sqrt(d) + mask) v` (Vaswani et al. 2017, eq. 1)."""

from __future__ import annotations

import math
from typing import Any

import torch

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Operators, Refused, arguments, aten, is_call, shape_of


def write_out_attention(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Rewrites the `scaled_dot_product_attention` at `at`; exact."""
    edit = Editor(captured, at)
    attention = edit.at
    if not is_call(attention, "scaled_dot_product_attention"):
        return Refused(f"{operator_type(attention)} is no attention")
    given = arguments(attention)
    query, key, value, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
    q_shape, k_shape = shape_of(query), shape_of(key)
    if q_shape is None or k_shape is None or shape_of(value) is None:
        return Refused("its operands have no fixed shape")
    if given["dropout_p"] or given["enable_gqa"]:
        return Refused("it drops weights at random, or shares keys between heads")
    if given["is_causal"]:
        allowed = torch.ones(q_shape[-2], k_shape[-2], dtype=torch.bool).tril()
        mask = edit.constant(torch.zeros(allowed.shape).masked_fill(~allowed, -math.inf), "causal_mask")
    if mask is not None and mask.meta["val"].dtype == torch.bool:
        return Refused("its mask is boolean: a row without any true element has no softmax")
    edit.replace(attention, attended(edit, {**given, "attn_mask": mask}))
    return edit.finish()


def attended(operators: Operators, given: dict[str, Any]) -> Any:
    """The result of attention, operator by operator.

    Args:
        operators: who computes them.
        given: arguments by their names in ATen's schema; a mask is in floating point, and alone what hides keys.
    """
    query, key, value, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
    scale = given["scale"] if given["scale"] is not None else 1 / math.sqrt(operators.shape(query)[-1])
    turned = operators.call(aten.transpose.int, key, -2, -1)
    # On the query: it is the smaller operand of the two that could be scaled.
    scores = operators.call(aten.matmul.default, operators.call(aten.mul.Tensor, query, scale), turned)
    if mask is not None:
        scores = operators.call(aten.add.Tensor, scores, mask)
    weights = operators.call(aten.softmax.int, scores, -1)
    if given["dropout_p"]:
        weights = operators.call(aten.dropout.default, weights, given["dropout_p"], True)
    return operators.call(aten.matmul.default, weights, value)
