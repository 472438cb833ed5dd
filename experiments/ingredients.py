"""What the result of a stage follows from; its hash is known before the stage has run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitwright.experiments import host as host_facts
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.record import Host
from bitwright.experiments.stage import Stage
from bitwright.experiments.stage_store import Ingredients, code_hash
from bitwright.experiments.workbench import Workbench


@dataclass(frozen=True)
class IngredientsOf:
    """Reads the ingredients of the stages of one recipe, here and now.

    Attributes:
        recipe: whose.
        bench: its data, model and target.
        versions: of packages.
        host: the machine.
    """

    recipe: Recipe
    bench: Workbench
    versions: Mapping[str, str] = field(default_factory=host_facts.versions)
    host: Host = field(default_factory=host_facts.host)

    def stage(self, stage: Stage, keys: Mapping[str, str]) -> Ingredients:
        """The ingredients of a stage.

        Args:
            stage: which.
            keys: of the stages before it that the recipe asks for.
        """
        parts: dict[str, Any] = {f"recipe {path}": self.recipe.section(path) for path in stage.reads}
        parts["seed"] = self.recipe.seed
        parts["code"] = code_hash(stage)
        parts.update({f"version of {name}": self.versions.get(name, "none") for name in stage.packages})
        parts.update({f"stage {name}": keys[name] for name in stage.needs if name in keys})
        if "target" in stage.reads:
            parts["target file"] = self.bench.target_fingerprint
        if "model" in stage.reads:
            parts["model code"] = self.bench.model_fingerprint
        if stage.reads_data:
            parts["data"] = self.bench.data.fingerprint
        if stage.reads_machine:
            parts["machine"] = self.host.model_dump(mode="json", exclude={"system", "memory_bytes"})
        for file in stage.reads_files(self.recipe):
            parts[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest() if Path(file).is_file() else "missing"
        return Ingredients(parts=parts)

    def keys(self, stages: Iterable[Stage]) -> dict[str, str]:
        """The hash of each stage's result, of those that the recipe asks for.

        Args:
            stages: in an order in which each comes behind those it needs.
        """
        keys: dict[str, str] = {}
        for stage in stages:
            if stage.wanted(self.recipe):
                keys[stage.name] = self.stage(stage, keys).key
        return keys
