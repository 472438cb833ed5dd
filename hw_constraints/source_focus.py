"""Which part of the user's line an operator call came from, so that a report can underline it."""

from __future__ import annotations

import re

from bitwright.quant.graph import Node

# How Python code spells what ATen calls otherwise.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "add": ("+",),
    "sub": ("-",),
    "rsub": ("-",),
    "mul": ("*",),
    "div": ("/",),
    "floor_divide": ("//",),
    "pow": ("**",),
    "matmul": ("@", "einsum"),
    "bmm": ("@", "einsum"),
    "mm": ("@", "einsum"),
    "gt": (">",),
    "lt": ("<",),
    "ge": (">=",),
    "le": ("<=",),
    "index": ("[",),
    "select": ("[",),
    "slice": ("[",),
    "index_put": ("[",),
    "affine_grid_generator": ("affine_grid",),
    "grid_sampler": ("grid_sample",),
    "grid_sampler_2d": ("grid_sample",),
    "grid_sampler_3d": ("grid_sample",),
    "constant_pad_nd": ("pad",),
    "item": (".item()",),
    "_local_scalar_dense": (".item()",),
}


def focus(node: Node) -> str:
    """The part of the node's source line that made the call; empty when it cannot be told from the text.

    Looked for in this order: the submodule's attribute (`self.conv1`), the operator's own name with what qualifies it
    (`torch.topk`), its other spellings (`+`, `F.interpolate`).
    """
    text = node.source.text if node.source else ""
    for part in reversed(node.module_path.split(".")):
        if part and not part.isdigit() and (match := re.search(rf"[\w.]*\b{re.escape(part)}\b(?:\[[^]]*\])?", text)):
            return match.group()
    for name in (node.op, *_spellings(node.op)):
        pattern = rf"[\w.]*\b{re.escape(name)}\b" if re.fullmatch(r"[\w.]+", name) else re.escape(name)
        if match := re.search(pattern, text):
            return match.group()
    return ""


def _spellings(op: str) -> tuple[str, ...]:
    if "upsample" in op:
        return ("interpolate",)
    if op.startswith("linalg_"):
        return (f"linalg.{op.removeprefix('linalg_').removesuffix('_ex')}", "inverse")
    return _SPELLINGS.get(op, ())
