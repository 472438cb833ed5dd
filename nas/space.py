"""What a search can vary: parameters as data, candidates with a canonical hash, and the protocol of a space."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import optuna
    import torch

Value = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One decision of a search.

    Attributes:
        name: unique in its space.
        choices: what can be chosen.
        ordered: whether neighbours in `choices` are alike (widths, depths), which samplers make use of.
    """

    name: str
    choices: tuple[Value, ...]
    ordered: bool

    def __post_init__(self) -> None:
        if not self.choices:
            raise InputError(f"search space: {self.name} has no choices; give some, or leave it out to keep it fixed")
        if len(set(self.choices)) < len(self.choices):
            raise InputError(f"search space: {self.name} = {list(self.choices)} names a choice twice")

    def suggest(self, trial: optuna.trial.BaseTrial) -> Value:
        """Asks the sampler; ordered parameters are integers to it, namely the place among `choices`."""
        if self.ordered:
            return self.choices[trial.suggest_int(self.name, 0, len(self.choices) - 1)]
        return cast(Value, trial.suggest_categorical(self.name, list(self.choices)))


@dataclass(frozen=True)
class Candidate:
    """A network and its formats, as one choice for each parameter; canonical (see `SearchSpace.canonical`)."""

    values: Mapping[str, Value]

    @cached_property
    def key(self) -> str:
        """The canonical hash: equal candidates have equal keys, in any process and on any machine."""
        return hash_of(self.values)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items())


class SearchSpace(Protocol):
    """A set of candidates. Spaces are picklable: they travel to workers."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What can be varied."""

    def canonical(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        """One spelling for choices that mean the same candidate.

        Raises:
            InputError: a value is missing, unknown or none of the choices.
        """

    def architecture(self, candidate: Candidate) -> Mapping[str, Value]:
        """The part of a candidate that the network's builder takes; candidates alike in it share their training."""

    def formats(self, candidate: Candidate, model: torch.nn.Module) -> Mapping[str, str]:
        """Globs over module paths, each with the name of a block format (`block_formats.BLOCK_FORMATS`).

        Raises:
            InputError: the network has no such blocks.
        """


def sample(space: SearchSpace, trial: optuna.trial.BaseTrial) -> Candidate:
    """The candidate that a sampler proposes."""
    return Candidate(space.canonical({each.name: each.suggest(trial) for each in space.parameters}))


def size(space: SearchSpace) -> int:
    """The number of combinations; several may be the same candidate."""
    return math.prod(len(each.choices) for each in space.parameters)


def definition(space: SearchSpace) -> dict[str, list[Value]]:
    """The choices of each parameter, for a record."""
    return {each.name: list(each.choices) for each in space.parameters}


def spelled_as_declared(parameters: tuple[Parameter, ...], values: Mapping[str, Value]) -> dict[str, Value]:
    """The values in the order and with the types of the declaration (`1` is `1.0` where widths are floats).

    Raises:
        InputError: a value is missing, unknown or none of the choices.
    """
    unknown = sorted(set(values) - {each.name for each in parameters})
    if unknown:
        raise InputError(f"search space: {', '.join(unknown)} cannot be varied; there are: {_names(parameters)}")
    spelled: dict[str, Value] = {}
    for each in parameters:
        if each.name not in values or values[each.name] not in each.choices:
            given = repr(values[each.name]) if each.name in values else "missing"
            raise InputError(f"search space: {each.name} = {given}; its choices are {list(each.choices)}")
        spelled[each.name] = each.choices[each.choices.index(values[each.name])]
    return spelled


def _names(parameters: tuple[Parameter, ...]) -> str:
    return ", ".join(each.name for each in parameters)


def hash_of(value: object) -> str:
    """16 hexadecimal digits of the SHA-256 of a JSON value, keys sorted."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
