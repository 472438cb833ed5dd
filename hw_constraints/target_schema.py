"""How a target file is written as a whole.

Only the border: `target.py` turns what passes here into the frozen `Target` that everything else reads.
"""

from __future__ import annotations

from pydantic import Field, StrictInt

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
