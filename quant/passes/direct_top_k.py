"""Reads the best elements from one `topk`, where they were sorted or gathered after it.

`x.sort(d, descending)[:k]` and `argsort` sort everything to keep `k`; `x.gather(d, x.topk(k, d).indices)` fetches what
`topk` has returned already. Elements of equal value may come in another order.
"""

from __future__ import annotations

from typing import Any

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call, shape_of


def direct_top_k(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Rewrites the `gather`, `sort` or `argsort` at `at`; bit for bit equal up to the order of equal elements."""
    edit = Editor(captured, at)
    if is_call(edit.at, "gather"):
        return _gathered(edit)
    if is_call(edit.at, "sort", "argsort"):
        return _sorted(edit)
    return Refused(f"{operator_type(edit.at)} neither sorts nor gathers")


def _gathered(edit: Editor) -> CapturedModel | Refused:
    gather = edit.at
    given = arguments(gather)
    index: Any = given["index"]
    top: Any = index.args[0] if index.target is not None and not isinstance(index.target, str) else None
    rank = len(shape_of(gather) or ())
    if not is_call(top, "topk") or index.args[1] != 1:
        return Refused("its indices do not come from a topk")
    of = arguments(top)
    if of["self"] is not given["self"] or of["dim"] % rank != given["dim"] % rank:
        return Refused("it gathers from another tensor than the topk looked at")
    edit.replace(gather, edit.part(top, 0))
    return edit.finish()


def _sorted(edit: Editor) -> CapturedModel | Refused:
    sort = edit.at
    given = arguments(sort)
    shape = shape_of(given["self"])
    if shape is None:
        return Refused("its operand has no fixed shape")
    axis = given["dim"] % len(shape)
    # What is read: the values and the indices of a sort, or the indices themselves.
    parts = {user: int(user.args[1]) for user in sort.users} if is_call(sort, "sort") else {sort: 1}  # type: ignore[arg-type]
    slices = [(user, part) for read, part in parts.items() for user in read.users]
    counts = {_kept(user, axis, len(shape)) for user, _ in slices}
    if len(counts) != 1 or None in counts:
        return Refused("what is read are not the same first elements of each row")
    (count,) = counts
    top = edit.call(aten.topk.default, given["self"], count, axis, bool(given["descending"]), True)
    for user, part in slices:
        edit.replace(user, edit.part(top, part))
    return edit.finish()


def _kept(user: torch.fx.Node, axis: int, rank: int) -> int | None:
    """How many elements from the front a slice along `axis` keeps."""
    if not is_call(user, "slice"):
        return None
    given = arguments(user)
    shape = shape_of(user)
    from_front = given["dim"] % rank == axis and not given["start"] and given["step"] == 1
    return shape[axis] if from_front and shape else None
