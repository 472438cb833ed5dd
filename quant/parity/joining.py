"""Which tensor of one link is which of another: by name, else by structure."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher

from bitwright.quant.parity.link import LinkTensor

# ONNX's and ATen's words for one operator, as far as they differ in more than case and underscores.
_SAME_OP = {
    "gemm": "linear",
    "addmm": "linear",
    "clip": "clamp",
    "hardtanh": "clamp",
    "relu6": "clamp",
    "globalaveragepool": "mean",
    "reducemean": "mean",
    "adaptiveavgpool2d": "mean",
    "flatten": "reshape",
    "view": "reshape",
    "concat": "cat",
    "averagepool": "avgpool",
    "batchnormalization": "batchnorm",
    "nativebatchnormlegitnotraining": "batchnorm",
    "nativelayernorm": "layernorm",
    "layernormalization": "layernorm",
    "mm": "matmul",
    "bmm": "matmul",
}


def join(
    first: Mapping[str, LinkTensor], second: Mapping[str, LinkTensor], replaced: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The second link's name of each tensor of the first that both have, in the first's order.

    What a rewrite has put in place of a tensor is that tensor (`replaced`), and no longer what its own name says: a
    convolution with its batch norm folded in gives the batch norm's result.

    Files of one exporter share their names. Where fewer than half of the smaller side's do, tensors are aligned in
    running order by operator and shape (the longest common subsequence, so that what only one side has is left out).
    """
    moved = {old: new for old, new in (replaced or {}).items() if old in first and new in second}
    shared = {name: name for name in first if name in second and name not in moved.values()} | moved
    if 2 * len(shared) >= min(len(first), len(second)):
        return shared
    left, right = [n for n in first if n not in shared], [n for n in second if n not in shared.values()]
    signatures = [_signature(first[name]) for name in left], [_signature(second[name]) for name in right]
    for block in SequenceMatcher(None, *signatures, autojunk=False).get_matching_blocks():
        for offset in range(block.size):
            shared[left[block.a + offset]] = right[block.b + offset]
    return {name: shared[name] for name in first if name in shared}


def join_outputs(first: Mapping[str, tuple[int, ...]], second: Mapping[str, tuple[int, ...]]) -> dict[str, str] | str:
    """The second link's name of each result: by name, by order where shapes agree, by shape where each has its own.

    Args:
        first: shapes by name, in order.
        second: likewise.

    Returns:
        The names, or why there is no telling.
    """
    if set(first) == set(second):
        return {name: name for name in first}
    if len(first) != len(second):
        return f"{len(first)} results ({_spell(first)}) against {len(second)} ({_spell(second)})"
    if list(first.values()) == list(second.values()):
        return dict(zip(first, second, strict=True))
    if len(set(first.values())) == len(first) and set(first.values()) == set(second.values()):
        by_shape = {shape: name for name, shape in second.items()}
        return {name: by_shape[shape] for name, shape in first.items()}
    return f"results of other shapes: {_spell(first)} against {_spell(second)}"


def _signature(tensor: LinkTensor) -> tuple[str, tuple[int | None, ...] | None]:
    op = tensor.op.lower().replace("_", "").removesuffix("copy")  # `view_copy`: of ATen's functional forms
    return _SAME_OP.get(op, op), tensor.shape


def _spell(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
