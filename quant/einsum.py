"""Einstein sums of two operands as products of matrices, which can be planned, quantized and counted."""

from __future__ import annotations

import math
from typing import Any

import torch


def einsum_by_matmul(equation: str, operands: list[torch.Tensor], path: Any = None) -> Any:
    """`bic,bjc->bij` as `[b, i, c] @ [b, c, j]`.

    Letters in both operands and the result are batches, those in both operands alone are contracted, the others are
    rows or columns. Equations with one or three operands, repeated letters, an ellipsis, letters that one operand sums
    away, or a broadcast size are not taken apart (`NotImplemented`).
    """
    left, _, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    letters = set(left.replace(",", ""))
    plain = len(terms) == 2 and "->" in equation and "." not in equation
    if not plain or any(len(set(term)) != len(term) for term in (*terms, result)):
        return NotImplemented
    pairs = [pair for term, op in zip(terms, operands, strict=True) for pair in zip(term, op.shape, strict=True)]
    sizes = dict(pairs)
    if any(sizes[letter] != n for letter, n in pairs):
        return NotImplemented
    a, b = terms
    batch = [letter for letter in a if letter in b and letter in result]
    summed = [letter for letter in a if letter in b and letter not in result]
    rows, columns = ([letter for letter in term if letter not in other] for term, other in ((a, b), (b, a)))
    if not summed or letters - set(batch) - set(summed) - set(result):
        return NotImplemented

    def matrix(operand: torch.Tensor, term: str, first: list[str], second: list[str]) -> torch.Tensor:
        order = [term.index(letter) for letter in (*batch, *first, *second)]
        shape = [*(sizes[letter] for letter in batch), *(math.prod(sizes[x] for x in part) for part in (first, second))]
        return operand.permute(order).reshape(shape)

    product = matrix(operands[0], a, rows, summed) @ matrix(operands[1], b, summed, columns)
    made = [*batch, *rows, *columns]
    product = product.reshape([sizes[letter] for letter in made])
    return product.permute([made.index(letter) for letter in result])
