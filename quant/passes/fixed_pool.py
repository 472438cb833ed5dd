"""Writes an adaptive average pool as operators with one window for the whole image.

Bins of an adaptive pool are `[floor(i n / m), ceil((i + 1) n / m))` for output `i` of `m` from `n` inputs. Where `m`
divides `n` they are windows of `n / m` side by side; else the pool is `A_h X A_w^T` with constant matrices whose rows
average one bin each.
"""

from __future__ import annotations

from typing import Any

import torch

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, aten, is_call, shape_of


def fixed_pool(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """`avg_pool2d` where the output size divides the input's, else two matrix products; exact."""
    edit = Editor(captured, at)
    pool = edit.at
    operand: Any = pool.args[0]
    before, after = shape_of(operand), shape_of(pool)
    if not is_call(pool, "adaptive_avg_pool2d") or before is None or after is None:
        return Refused(f"{operator_type(pool)} is no adaptive average pool of an image of known size")
    sizes = [*zip(before[-2:], after[-2:], strict=True)]
    if all(n % m == 0 for n, m in sizes):
        window = [n // m for n, m in sizes]
        edit.replace(pool, edit.call(aten.avg_pool2d.default, operand, window, window))
        return edit.finish()
    rows, columns = (averages(n, m).to(pool.meta["val"].dtype) for n, m in sizes)
    wide = edit.call(aten.matmul.default, operand, edit.constant(columns.T, "pool_columns"))
    edit.replace(pool, edit.call(aten.matmul.default, edit.constant(rows, "pool_rows"), wide))
    return edit.finish()


def averages(inputs: int, outputs: int) -> torch.Tensor:
    """`A` [outputs, inputs], row `i` averages bin `i`."""
    matrix = torch.zeros(outputs, inputs)
    for i in range(outputs):
        start, end = i * inputs // outputs, -(-(i + 1) * inputs // outputs)
        matrix[i, start:end] = 1 / (end - start)
    return matrix
