"""How a target file is written as a whole.

Only the border: `target.py` turns what passes here into the frozen `Target` that everything else reads.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field, StrictInt, model_validator

from bitwright.hw_constraints.target_fields import SourceFile, Strict
from bitwright.hw_constraints.target_schema_hardware import (
    CostFile,
    EngineFile,
    LayoutFile,
    LinkFile,
    MemoryFile,
    ReformatFile,
    SparsityFile,
    SparsityPattern,
)
from bitwright.hw_constraints.target_schema_numerics import ConstraintFile, NumericsFile, OperatorsFile, ShapesFile
from bitwright.hw_constraints.target_types import Capability
from bitwright.quant.errors import suggestion


class ArtifactFile(Strict):
    """What the target's own toolchain reads."""

    format: str
    opset: StrictInt | None = Field(default=None, ge=1, le=1000)
    runtimes: tuple[str, ...]


class TargetFile(Strict):
    """A whole target file, parents merged in."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: StrictInt = Field(ge=1)
    description: str = Field(min_length=1)
    extends: str | None = None
    capabilities: tuple[Capability, ...] = Field(min_length=1)
    missing: dict[Capability, str] = Field(default_factory=dict)
    sources: dict[str, SourceFile]
    artifact: ArtifactFile
    engines: dict[str, EngineFile] = Field(default_factory=dict)
    memories: dict[str, MemoryFile] = Field(default_factory=dict)
    links: dict[str, LinkFile] = Field(default_factory=dict)
    layouts: dict[str, LayoutFile] = Field(default_factory=dict)
    reformats: dict[str, ReformatFile] = Field(default_factory=dict)
    sparsity: dict[SparsityPattern, SparsityFile] = Field(default_factory=dict)
    cost: CostFile | None = None
    numerics: NumericsFile
    operators: OperatorsFile
    shapes: ShapesFile
    constraints: dict[str, ConstraintFile] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_exist(self) -> TargetFile:
        for name, engine in self.engines.items():
            _known(f"engines.{name}", (*engine.reads, *engine.writes), "memory", self.memories)
        for name, link in self.links.items():
            _known(f"links.{name}", (link.start, link.end), "memory", self.memories)
        for name, reformat in self.reformats.items():
            _known(f"reformats.{name}", (reformat.start, reformat.end), "layout", self.layouts)
            _known(f"reformats.{name}", [reformat.engine] if reformat.engine else [], "engine", self.engines)
        if sum(layout.default for layout in self.layouts.values()) > 1:
            raise ValueError("layouts has more than one default")
        return self

    @model_validator(mode="after")
    def _each_memory_is_reached(self) -> TargetFile:
        reached = {name for engine in self.engines.values() for name in (*engine.reads, *engine.writes)}
        grew = True
        while grew:
            ends = {link.start for link in self.links.values() if link.end in reached}
            ends |= {link.end for link in self.links.values() if link.start in reached}
            grew = not ends <= reached
            reached |= ends
        for name in self.memories:
            if name not in reached:
                raise ValueError(
                    f"no engine reaches memory {name!r}; name it in an engine's reads or writes, or in a link"
                )
        return self

    @model_validator(mode="after")
    def _served_or_missing(self) -> TargetFile:
        both = [each for each in self.missing if each in self.capabilities]
        if both:
            raise ValueError(f"{both[0]} stands in capabilities and in missing")
        return self


def _known(where: str, names: Iterable[str], what: str, choices: Iterable[str]) -> None:
    known = list(choices)
    for name in names:
        if name not in known:
            raise ValueError(f"{where} names the {what} {name!r}; there are: {', '.join(known) or 'none'}"
                             f"{suggestion(name, known)}")  # fmt: skip
