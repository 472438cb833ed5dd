"""Writes the inverse of small matrices in closed form, with operators that every accelerator has.

In general `A^-1 = adj(A) / det(A)`. By Laplace's expansion along the first two rows, with `s_ij` the 2x2 minors of
rows 0 and 1 and `c_ij` those of rows 2 and 3, `det = s01 c23 - s02 c13 + s03 c12 + s12 c03 - s13 c02 + s23 c01`
(Eberly, The Laplace Expansion Theorem, 2008). A rigid transform `[R t; 0 1]` has `[R^T, -R^T t; 0 1]`.
"""

from __future__ import annotations

from typing import Any

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, aten, is_call, shape_of

INVERSES = ("inverse", "linalg_inv", "linalg_inv_ex")


def closed_form_inverse(captured: CapturedModel, at: str, *, rigid: bool) -> CapturedModel | Refused:
    """Rewrites the inverse at `at`.

    Args:
        captured: the network.
        at: its node.
        rigid: take it that the matrices are rigid transforms; whether they are, only their values tell.
    """
    edit = Editor(captured, at)
    inverse = edit.at
    shape = shape_of(inverse.args[0]) if is_call(inverse, *INVERSES) else None
    if shape is None:
        return Refused(f"{operator_type(inverse)} is no inverse of matrices of known size")
    size = shape[-1]
    if rigid and size != 4:
        return Refused(f"rigid transforms are 4 x 4, these are {size} x {size}")
    if size not in (2, 3, 4):
        return Refused(f"closed forms of {size} x {size} lose too many digits; 2 to 4 are written out")
    results = [inverse]
    if is_call(inverse, "linalg_inv_ex"):
        results = [user for user in inverse.users if user.args[1] == 0]
        if len(results) != len(inverse.users):
            return Refused("its second result, the error code, is read")
    matrix: Any = inverse.args[0]
    made = _rigid(edit, matrix, shape) if rigid else _adjugate(edit, matrix, shape)
    for result in results:
        edit.replace(result, made)
    return edit.finish()


def _rigid(edit: Editor, matrix: torch.fx.Node, shape: tuple[int, ...]) -> torch.fx.Node:
    def part(x: torch.fx.Node, axis: int, start: int, end: int) -> torch.fx.Node:
        return edit.call(aten.slice.Tensor, x, axis, start, end)

    axis = len(shape) - 2
    top = part(matrix, axis, 0, 3)
    turned = edit.call(aten.transpose.int, part(top, axis + 1, 0, 3), axis, axis + 1)
    moved = edit.call(aten.neg.default, edit.call(aten.matmul.default, turned, part(top, axis + 1, 3, 4)))
    upper = edit.call(aten.cat.default, [turned, moved], axis + 1)
    return edit.call(aten.cat.default, [upper, part(matrix, axis, 3, 4)], axis)


def _adjugate(edit: Editor, matrix: torch.fx.Node, shape: tuple[int, ...]) -> torch.fx.Node:
    """Each element of `adj(A)` in terms of elements of `A`, all of them `[...]`."""
    size = shape[-1]
    rows = [edit.call(aten.select.int, matrix, len(shape) - 2, i) for i in range(size)]
    a = [[edit.call(aten.select.int, row, len(shape) - 2, j) for j in range(size)] for row in rows]
    maths = _Scalars(edit)
    if size == 2:
        adjugate = [[a[1][1], maths.negative(a[0][1])], [maths.negative(a[1][0]), a[0][0]]]
        determinant = maths.minor(a[0], a[1], 0, 1)
    elif size == 3:
        adjugate = [[_cofactor3(maths, a, j, i) for j in range(3)] for i in range(3)]
        determinant = maths.sum([(a[0][j], adjugate[j][0], 1) for j in range(3)])
    else:
        adjugate, determinant = _adjugate4(maths, a)
    flat = edit.call(aten.stack.default, [element for row in adjugate for element in row], len(shape) - 2)
    divisor = edit.call(aten.unsqueeze.default, determinant, -1)
    return edit.call(aten.reshape.default, edit.call(aten.div.Tensor, flat, divisor), list(shape))


class _Scalars:
    """Sums of products of elements."""

    def __init__(self, edit: Editor) -> None:
        self.edit = edit

    def negative(self, x: torch.fx.Node) -> torch.fx.Node:
        return self.edit.call(aten.neg.default, x)

    def sum(self, terms: list[tuple[torch.fx.Node, torch.fx.Node, int]]) -> torch.fx.Node:
        """`Σ sign x y`."""
        total: Any = None
        for x, y, sign in terms:
            product = self.edit.call(aten.mul.Tensor, x, y)
            if total is None:
                total = product if sign > 0 else self.negative(product)
            else:
                total = self.edit.call(aten.add.Tensor if sign > 0 else aten.sub.Tensor, total, product)
        return total  # type: ignore[no-any-return]

    def minor(self, upper: list[torch.fx.Node], lower: list[torch.fx.Node], i: int, j: int) -> torch.fx.Node:
        return self.sum([(upper[i], lower[j], 1), (upper[j], lower[i], -1)])


def _cofactor3(maths: _Scalars, a: list[list[torch.fx.Node]], i: int, j: int) -> torch.fx.Node:
    """Element `(i, j)` of the cofactors; indices modulo 3 bring the sign."""
    upper, lower = a[(i + 1) % 3], a[(i + 2) % 3]
    return maths.minor(upper, lower, (j + 1) % 3, (j + 2) % 3)


_PAIRS = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


def _adjugate4(maths: _Scalars, a: list[list[torch.fx.Node]]) -> tuple[list[list[torch.fx.Node]], torch.fx.Node]:
    """By the minors of the two upper rows (`s`) and of the two lower rows (`c`)."""
    s = {pair: maths.minor(a[0], a[1], *pair) for pair in _PAIRS}
    c = {pair: maths.minor(a[2], a[3], *pair) for pair in _PAIRS}
    signs = (1, -1, 1, 1, -1, 1)
    lower = [pair for pair in reversed(_PAIRS)]
    determinant = maths.sum([(s[p], c[q], sign) for p, q, sign in zip(_PAIRS, lower, signs, strict=True)])
    adjugate: list[list[torch.fx.Node]] = []
    for i in range(4):
        x, y, z = (k for k in range(4) if k != i)
        row = []
        for j in range(4):
            # Deleting row j leaves its partner among the two rows of its half, and the other half's minors.
            partner, minors = (a[j ^ 1], c) if j < 2 else (a[j ^ 1], s)
            sign = 1 if (i + j) % 2 == 0 else -1
            terms = [
                (partner[x], minors[y, z], sign),
                (partner[y], minors[x, z], -sign),
                (partner[z], minors[x, y], sign),
            ]
            row.append(maths.sum(terms))
        adjugate.append(row)
    return adjugate, determinant
