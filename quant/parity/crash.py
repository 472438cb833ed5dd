"""Which layer ends a link's process: the first whose prefix does, found by halves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.utils._pytree as pytree

from bitwright.quant.parity.link import Array, Link, LinkCrash, LinkError
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import to_array


def crash_site(link: Link, inputs: Sequence[Inputs]) -> str:
    """` at conv@0.0.0 (conv2d, net.py:7)`; empty where no prefix of the network can be run alone, or none crashes.

    Args:
        link: whose process has ended on one of the inputs.
        inputs: what it ran on.
    """
    if not link.takes_tensors:
        return ""
    for each in inputs:
        try:
            name = _first_that_crashes(link, each)
        except LinkError:  # it does not even tell its tensors, or says now why it cannot run
            return ""
        if name:
            tensor = link.tensors[name]
            return f" at {name} ({', '.join(word for word in (tensor.op, tensor.source) if word) or 'input'})"
    return ""


def _first_that_crashes(link: Link, inputs: Inputs) -> str:
    """In O(log n) runs, each of all layers up to one."""
    names = [name for name, tensor in link.tensors.items() if tensor.reads]
    entering = _entering(link, inputs)
    if not names or not entering or not _crashes(link, inputs, names, entering):
        return ""
    low, high = 0, len(names)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _crashes(link, inputs, names[:middle], entering) else (middle, high)
    return names[low]


def _crashes(link: Link, inputs: Inputs, names: Sequence[str], entering: Mapping[str, Array]) -> bool:
    """Given its own inputs a link computes what the names hang on, and nothing behind them."""
    try:
        link.run(inputs, wanted=names, given=entering)
    except LinkCrash:
        return True
    return False


def _entering(link: Link, inputs: Inputs) -> dict[str, Array]:
    """The arguments under the names of the link's input tensors; nothing where they cannot be told apart."""
    leaves = [to_array(each) for each in pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))
              if isinstance(each, torch.Tensor) and each.is_floating_point()]  # fmt: skip
    names = [name for name, tensor in link.tensors.items() if not tensor.reads and not tensor.op]
    fits = len(names) == len(leaves) and all(
        link.tensors[name].shape in (None, leaf.shape) for name, leaf in zip(names, leaves, strict=True)
    )
    return dict(zip(names, leaves, strict=True)) if fits else {}
