"""Number formats and patterns of zeros as decisions of a search, one for each run of consecutive blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bitwright.nas.block_formats import BLOCK_FORMATS
from bitwright.nas.space import Candidate, Parameter
from bitwright.quant.errors import InputError, unknown

if TYPE_CHECKING:
    import torch

DENSE = "dense"


class BlockSettings(BaseModel):
    """What a recipe may say about blocks in any search space.

    Attributes:
        formats: number formats, chosen for each stage on its own.
        sparsity: patterns of zeros likewise: `dense`, `2:4`, `16x1` (`qat.sparsity.patterns`).
        stages: into how many runs of consecutive blocks the network is split for that.
        blocks: the path of the module whose children are the blocks; "" is the network itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    formats: tuple[str, ...] | None = None
    sparsity: tuple[str, ...] | None = None
    stages: Annotated[int, Field(ge=1)] = 4
    blocks: str = "blocks"

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in formats or ():
            if name not in BLOCK_FORMATS:
                raise ValueError(str(unknown("block format", name, BLOCK_FORMATS)))
        return formats

    @field_validator("sparsity")
    @classmethod
    def _patterns(cls, sparsity: tuple[str, ...] | None) -> tuple[str, ...] | None:
        from bitwright.qat.sparsity.patterns import Pattern

        for text in sparsity or ():
            if text != DENSE:
                try:
                    Pattern.parse(text)
                except InputError as error:
                    raise ValueError(f"{error}; or {DENSE}") from None
        return sparsity

    def block_choices(self) -> BlockChoices:
        """These settings as decisions."""
        return BlockChoices(
            formats=self.formats or (), sparsity=self.sparsity or (), stages=self.stages, blocks=self.blocks
        )


@dataclass(frozen=True, kw_only=True)
class BlockChoices:
    """Decisions `format_0`, `sparsity_0`, … for each of `stages` runs of the children of `blocks`.

    Attributes:
        formats: names of `block_formats.BLOCK_FORMATS`; none decides nothing.
        sparsity: patterns and `dense`; none decides nothing.
        stages: how many runs.
        blocks: the path of the module whose children are the blocks.
    """

    formats: tuple[str, ...] = ()
    sparsity: tuple[str, ...] = ()
    stages: int = 4
    blocks: str = "blocks"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Formats of all stages, then patterns of all stages."""
        decided = {"format": self.formats, "sparsity": self.sparsity}
        return tuple(
            Parameter(name=f"{what}_{stage}", choices=choices, ordered=False)
            for what, choices in decided.items()
            if choices
            for stage in range(self.stages)
        )

    def check(self, largest: torch.nn.Module) -> None:
        """Refuses a network without such blocks before any candidate of it is made.

        Raises:
            InputError: it has none, or fewer than stages.
        """
        if self.formats or self.sparsity:
            self._checked_paths(largest)

    def format_by_block(self, candidate: Candidate, model: torch.nn.Module) -> dict[str, str]:
        """The path of each block, with the format of its stage.

        Raises:
            InputError: the model has no such blocks, or fewer than stages.
        """
        return self._by_block("format", candidate, model) if self.formats else {}

    def sparsity_by_block(self, candidate: Candidate, model: torch.nn.Module) -> dict[str, str]:
        """The path of each block that is not dense, with the pattern of its stage; raises as `format_by_block`."""
        found = self._by_block("sparsity", candidate, model) if self.sparsity else {}
        return {path: pattern for path, pattern in found.items() if pattern != DENSE}

    def _by_block(self, what: str, candidate: Candidate, model: torch.nn.Module) -> dict[str, str]:
        paths = self._checked_paths(model)
        return {
            path: str(candidate.values[f"{what}_{index * self.stages // len(paths)}"])
            for index, path in enumerate(paths)
        }

    def _checked_paths(self, model: torch.nn.Module) -> list[str]:
        paths = self._paths(model)
        if len(paths) < self.stages:
            raise InputError(
                f"search space: the model has {len(paths)} blocks in {self.blocks!r}; "
                f"stages = {self.stages} cannot be more"
            )
        return paths

    def _paths(self, model: torch.nn.Module) -> list[str]:
        try:
            container = model.get_submodule(self.blocks)
        except AttributeError:
            has = ", ".join(name for name, _ in model.named_children())
            raise InputError(
                f"search space: blocks = {self.blocks!r}; the model has no such module, it has {has}; name the one "
                'whose children are the blocks that formats and sparsity are chosen for, or "" for the network itself'
            ) from None
        return [f"{self.blocks}.{name}".lstrip(".") for name, _ in container.named_children()]
