"""Merges the unrolled steps of a loop over the parts of a tensor into one pass over the batch.

`torch.stack([f(x[:, i]) for i in range(n)], 1)` runs the same layers n times on small batches. Where every step reads
the same weights, and each of its operators works on the elements of a batch by themselves, `f` runs once on
`[B n, …]`.
"""

from __future__ import annotations

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.rewrite import Editor, Refused, aten, shape_of
from bitwright.quant.unrolled_loop import unrolled_loop


def batch_loop(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Merges the loop whose results the `stack` at `at` collects; exact."""
    loop = unrolled_loop(captured.graph, captured.graph.by_name[at])
    if isinstance(loop, str):
        return Refused(loop)
    edit = Editor(captured, at)
    source = edit.tensor(loop.source)
    shape, result = shape_of(source), shape_of(edit.at)
    assert shape is not None and result is not None  # unrolled_loop has looked
    value = edit.call(aten.reshape.default, source, [shape[0] * shape[1], *shape[2:]])
    for step in loop.step:
        node = edit.tensor(step.outputs[0])
        value = edit.call(node.target, value, *node.args[1:], **node.kwargs)
    edit.replace(edit.at, edit.call(aten.reshape.default, value, list(result)))
    return edit.finish()
