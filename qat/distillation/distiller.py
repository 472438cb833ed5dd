"""Runs a teacher beside the network that trains, and adds up what there is to learn from it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from bitwright.qat.distillation.balance import Balance
from bitwright.qat.distillation.terms import Feature, Logits, Seen, Term
from bitwright.quant.errors import InputError


class Distiller:
    """The loss of a student that follows a teacher.

        distiller = Distiller(model, (images,), terms=[Logits(), Feature(module="features.12")])
        qat = QATCallback(model, optimizer, ...)
        for images, _ in loader:
            loss = distiller.loss(model(images), (images,))

    Made before the callback is attached, it copies the network in float for a teacher. Where the features of student
    and teacher differ in channels, a linear projection learns to read the student's (FitNets' regressor): add
    `distiller.parameters()` to the optimizer.

    Args:
        student: the network that trains.
        example: arguments of its `forward`, on which shapes are seen.
        teacher: another network, which takes the same arguments; a copy of `student` when not given.
        terms: what is learned; the logits when not given.
        balance: how the terms weigh; every one is divided by its own moving average when not given.

    Attributes:
        last: each term's value in the last call of `loss`, for reports.

    Raises:
        InputError: a term names a module or an output that is not there, or two terms are the same.
    """

    def __init__(
        self,
        student: nn.Module,
        example: tuple[Any, ...],
        *,
        teacher: nn.Module | None = None,
        terms: Sequence[Term] = (Logits(),),
        balance: Balance | None = None,
    ) -> None:
        names = [term.name for term in terms]
        if len(set(names)) != len(names) or not names:
            raise InputError(f"distillation: terms {names}; give at least one, and each of them once")
        self.student = student
        self.teacher = copy.deepcopy(student) if teacher is None else teacher
        self.teacher.eval().requires_grad_(False)
        self.terms, self.balance = tuple(terms), balance or Balance()
        self.last: dict[str, float] = {}
        wanted = [term.modules for term in terms if term.modules is not None]
        self._ours = _Watch(student, [ours for ours, _ in wanted], "the network that trains")
        self._theirs = _Watch(self.teacher, [theirs for _, theirs in wanted], "the teacher")
        self.projections = self._projections(example)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of the projections."""
        return self.projections.parameters()

    def loss(self, outputs: Any, args: tuple[Any, ...]) -> torch.Tensor:
        """The weighed sum of all terms, a scalar.

        Args:
            outputs: what the student has just returned for `args`; features are those of that call.
            args: the arguments of `forward`.
        """
        found = self._terms(self._ours.seen(outputs), self._ask(args))
        total = self.balance.total(found)
        self.last = {name: float(term.detach()) for name, term in found.items()}
        return total

    def remove(self) -> None:
        """Takes the hooks out of the student."""
        self._ours.remove()
        self._theirs.remove()

    def _ask(self, args: tuple[Any, ...]) -> Seen:
        with torch.no_grad():
            return self._theirs.seen(self.teacher(*args))

    def _terms(self, ours: Seen, theirs: Seen) -> dict[str, torch.Tensor]:
        result = {}
        for term in self.terms:
            student = ours
            if term.name in self._keys:
                assert term.modules is not None
                name = term.modules[0]
                projection = self.projections[self._keys[term.name]]
                student = Seen(outputs=(), modules={name: projection(ours.modules[name])})
            result[term.name] = term.loss(student, theirs)
        return result

    def _projections(self, example: tuple[Any, ...]) -> nn.ModuleDict:
        """One for each feature whose channels differ; also runs every term once, so that mistakes show at once."""
        modes = {module: module.training for module in self.student.modules()}
        self.student.eval()
        try:
            with torch.no_grad():
                ours, theirs = self._ours.seen(self.student(*example)), self._ask(example)
        finally:
            for module, training in modes.items():
                module.training = training
        made, self._keys = nn.ModuleDict(), dict[str, str]()
        for term in self.terms:
            if isinstance(term, Feature):
                name, other = term.module, term.teacher_module or term.module
                projection = _projection(ours.modules[name], theirs.modules[other], term.name)
                if projection is not None:
                    self._keys[term.name] = term.name.replace(".", "/")  # module names know no dots
                    made[self._keys[term.name]] = projection.to(ours.modules[name].device)
        self.projections = made
        with torch.no_grad():
            self._terms(ours, theirs)
        return made


class _Watch:
    """Keeps what modules return."""

    def __init__(self, network: nn.Module, names: Sequence[str], who: str) -> None:
        self.results: dict[str, torch.Tensor] = {}
        modules = dict(network.named_modules())
        for name in names:
            if name not in modules:
                raise InputError(f"distillation: {who} has no module {name!r}; its names are those of named_modules()")
        self._handles = [modules[name].register_forward_hook(self._keeper(name)) for name in dict.fromkeys(names)]

    def _keeper(self, name: str) -> Any:
        def keep(_: nn.Module, __: Any, result: Any) -> None:
            self.results[name] = _floats(result)[0]

        return keep

    def seen(self, outputs: Any) -> Seen:
        """The last forward; forgets it, so that its graph can be freed."""
        found, self.results = self.results, {}
        return Seen(outputs=_floats(outputs), modules=found)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _floats(result: Any) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves(result)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _projection(ours: torch.Tensor, theirs: torch.Tensor, name: str) -> nn.Module | None:
    """Channels are axis 1 of pictures [N, C, ...] and the last one of tokens [N, tokens, C] and vectors [N, C]."""
    if ours.shape == theirs.shape:
        return None
    if ours.dim() == theirs.dim() == 4 and ours.shape[2:] == theirs.shape[2:]:
        return nn.Conv2d(ours.shape[1], theirs.shape[1], 1, bias=False)
    if ours.dim() == theirs.dim() in (2, 3) and ours.shape[:-1] == theirs.shape[:-1]:
        return nn.Linear(ours.shape[-1], theirs.shape[-1], bias=False)
    raise InputError(
        f"distillation: {name} is {list(ours.shape)} in the network that trains and {list(theirs.shape)} in the "
        "teacher; only their channels may differ: name modules of the same resolution"
    )
