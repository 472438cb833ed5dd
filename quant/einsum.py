"""Einstein sums of two operands as products of matrices, which can be planned, quantized and counted.

Torch-free at import: the import of ONNX files takes the same equations apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class MatrixForm:
    """How one operand becomes a batch of matrices: its axes in another order, then reshaped.

    Attributes:
        order: which axis of the operand each axis is.
        shape: `[batch..., rows, columns]`.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ProductForm:
    """An Einstein sum as `left @ right`.

    Attributes:
        left: of the first operand, `[batch..., rows, summed]`.
        right: of the second one, `[batch..., summed, columns]`.
        unfolded: the product's shape with every letter an axis of its own.
        order: which of those axes each axis of the result is.
    """

    left: MatrixForm
    right: MatrixForm
    unfolded: tuple[int, ...]
    order: tuple[int, ...]


def product_form(equation: str, shapes: Sequence[Sequence[int]]) -> ProductForm | None:
    """`bic,bjc->bij` as `[b, i, c] @ [b, c, j]`.

    Letters in both operands and the result are batches, those in both operands alone are contracted, the others are
    rows or columns. None for equations with one or three operands, repeated letters, an ellipsis, letters that one
    operand sums away, or a broadcast size.
    """
    left, _, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    letters = set(left.replace(",", ""))
    plain = len(terms) == len(shapes) == 2 and "->" in equation and "." not in equation
    if not plain or any(len(set(term)) != len(term) for term in (*terms, result)):
        return None
    if any(len(term) != len(shape) for term, shape in zip(terms, shapes, strict=True)) or set(result) - letters:
        return None
    pairs = [pair for term, shape in zip(terms, shapes, strict=True) for pair in zip(term, shape, strict=True)]
    sizes = dict(pairs)
    if any(sizes[letter] != n for letter, n in pairs):
        return None
    a, b = terms
    batch = [letter for letter in a if letter in b and letter in result]
    summed = [letter for letter in a if letter in b and letter not in result]
    rows, columns = ([letter for letter in term if letter not in other] for term, other in ((a, b), (b, a)))
    if not summed or letters - set(batch) - set(summed) - set(result):
        return None

    def matrix(term: str, first: list[str], second: list[str]) -> MatrixForm:
        order = tuple(term.index(letter) for letter in (*batch, *first, *second))
        across = (math.prod(sizes[letter] for letter in part) for part in (first, second))
        return MatrixForm(order=order, shape=(*(sizes[letter] for letter in batch), *across))

    made = [*batch, *rows, *columns]
    return ProductForm(
        left=matrix(a, rows, summed),
        right=matrix(b, summed, columns),
        unfolded=tuple(sizes[letter] for letter in made),
        order=tuple(made.index(letter) for letter in result),
    )


def einsum_by_matmul(equation: str, operands: list[torch.Tensor], path: Any = None) -> Any:
    """A decomposition for `torch.export`; `NotImplemented` where `product_form` has none."""
    form = product_form(equation, [operand.shape for operand in operands])
    if form is None:
        return NotImplemented
    left, right = (
        operand.permute(each.order).reshape(each.shape)
        for operand, each in zip(operands, (form.left, form.right), strict=True)
    )
    return (left @ right).reshape(form.unfolded).permute(form.order)
