"""A search space written down as data: decisions, and under which others each of them means something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bitwright.nas.block_choices import BlockChoices
from bitwright.nas.space import Candidate, Parameter, Value, spelled_as_declared
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Need:
    """A decision means something only where another one is at least `least` (a block's kernel: where the block is)."""

    parameter: str
    least: float


@dataclass(frozen=True, kw_only=True)
class DeclaredSpace:
    """See `SearchSpace`. Candidates that differ only in decisions that mean nothing are one candidate.

    Attributes:
        own: decisions about the architecture.
        needs: what a decision of these needs to mean something, by its name; else its first choice stands for all.
        block_choices: formats and sparsity.
        nothing: what to do when there is nothing to decide, for the message.
    """

    own: tuple[Parameter, ...]
    needs: Mapping[str, Need] = field(default_factory=dict)
    block_choices: BlockChoices = field(default_factory=BlockChoices)
    nothing: str = "give choices"

    def __post_init__(self) -> None:
        if not self.parameters:
            raise InputError(f"search space: nothing can be varied; {self.nothing}")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The architecture's first, then formats and sparsity by stage."""
        return (*self.own, *self.block_choices.parameters)

    def canonical(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        """See `SearchSpace.canonical`."""
        spelled = spelled_as_declared(self.parameters, values)
        for each in self.own:
            if not self.has_meaning(each.name, spelled):
                spelled[each.name] = each.choices[0]
        return spelled

    def has_meaning(self, name: str, values: Mapping[str, Value]) -> bool:
        """Whether a decision changes the network, beside these others."""
        need = self.needs.get(name)
        if need is None or need.parameter not in values:
            return True
        return float(values[need.parameter]) >= need.least and self.has_meaning(need.parameter, values)

    def architecture(self, candidate: Candidate) -> Mapping[str, Value]:
        """All decisions but formats and sparsity."""
        return {each.name: candidate.values[each.name] for each in self.own}

    def formats(self, candidate: Candidate, model: torch.nn.Module) -> Mapping[str, str]:
        """The path of each block, with the format of its stage."""
        return self.block_choices.format_by_block(candidate, model)

    def sparsity(self, candidate: Candidate, model: torch.nn.Module) -> Mapping[str, str]:
        """The path of each block that is not dense, with its pattern of zeros (`qat.sparsity.patterns`)."""
        return self.block_choices.sparsity_by_block(candidate, model)
