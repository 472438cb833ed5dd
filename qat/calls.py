"""Which of a module's calls within one forward this is, also when activation checkpointing repeats it."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.quant.errors import InputError

# Forwards whose calls are remembered until their backward comes, as under gradient accumulation before one backward;
# of a region that a loop calls, each of its calls is one.
_FORWARDS = 64


def is_repeated() -> bool:
    """Whether a forward runs inside a backward: `torch.utils.checkpoint` computes again what it did not keep."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class CallCounter:
    """Counts the calls of one module from zero in each forward of the network.

    A module that is called several times may have other scales in each call. Checkpointing repeats the later calls
    first, so that counting would mistake them; a repeated call has the very input of the first time, and is known by
    that.

    Attributes:
        seen: calls so far in this forward.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._inputs: deque[tuple[int, Any]] = deque()

    def next(self, of: int, module: torch.nn.Module, args: Any) -> int:
        """The number of this call.

        Args:
            of: how many calls are told apart; more start from the first again. 0 counts on without end.
            module: that is called.
            args: its arguments.

        Raises:
            InputError: a repeated call has an input that no call had.
        """
        if of == 1:
            return 0
        if of and is_repeated():
            return self._repeated(module, args)
        call = self.seen % of if of else self.seen
        self.seen += 1
        if of and module.training:
            self._inputs.append((call, _fingerprint(args)))
            if len(self._inputs) > of * _FORWARDS:
                self._inputs.popleft()
        return call

    def _repeated(self, module: torch.nn.Module, args: Any) -> int:
        print_ = _fingerprint(args)
        for place in range(len(self._inputs) - 1, -1, -1):
            call, first = self._inputs[place]
            if first == print_:
                del self._inputs[place]
                return call
        raise InputError(
            f"a {type(module).__name__} that the network calls several times is computed again in the backward pass "
            "with an input that it did not have before; activation checkpointing must repeat the forward exactly "
            "(preserve_rng_state=True)"
        )


def _fingerprint(args: Any) -> tuple[Any, ...]:
    """Equal for equal arguments; sums of one order of additions are equal to the last bit."""
    tensors = [leaf.detach() for leaf in pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor)]
    return tuple((tuple(t.shape), float(t.float().sum()), float(t.float().abs().sum())) for t in tensors)
