"""What a stage is: a file in `stages/` that says what its result follows from, and a function that makes the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from bitwright.experiments.console import Console
from bitwright.experiments.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from bitwright.experiments.workbench import Workbench

Result = TypeVar("Result", bound=BaseModel)


def _always(recipe: Recipe) -> bool:
    return True


def _nothing(recipe: Recipe) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a run, as data.

    Its result is used again as long as nothing that it follows from has changed: the recipe sections it reads, the
    results of the stages it needs, the data, the code, the versions of packages and, where it says so, the machine.

    Attributes:
        name: of the stage and of its folder in the run.
        run: makes the result; writes files to `context.folder` only.
        result: the class of the result.
        needs: stages whose results it reads; those that the recipe does not ask for are left out.
        reads: recipe sections, dotted.
        reads_data: whether the result follows from the data.
        reads_machine: whether it follows from the machine it ran on.
        reads_files: files that the recipe names and the result follows from.
        code: packages whose source the result follows from, besides the stage's own file.
        packages: distributions whose versions it follows from.
        wanted: whether a recipe asks for it.
    """

    name: str
    run: Callable[[Context], BaseModel]
    result: type[BaseModel]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    reads_data: bool = False
    reads_machine: bool = False
    reads_files: Callable[[Recipe], tuple[str, ...]] = _nothing
    code: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("torch",)
    wanted: Callable[[Recipe], bool] = _always


@dataclass(frozen=True, kw_only=True)
class FinishedStage:
    """A stage's result on disk."""

    folder: Path
    key: str
    seconds: float
    files: tuple[str, ...]
    result: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a stage works with.

    Attributes:
        recipe: the checked recipe.
        folder: where the stage writes; it becomes the stage's folder only when the stage has finished.
        bench: model, data and target of the recipe, opened when first asked for.
        finished: the stages that ran before, by name.
        console: progress and messages.
        run_folder: the whole run; read-only for stages.
    """

    recipe: Recipe
    folder: Path
    bench: Workbench
    console: Console
    run_folder: Path
    finished: Mapping[str, FinishedStage] = field(default_factory=dict)

    def result(self, name: str, model: type[Result]) -> Result | None:
        """An earlier stage's result; None when the recipe did not ask for it."""
        done = self.finished.get(name)
        return model.model_validate(done.result) if done is not None else None

    def require(self, name: str, model: type[Result]) -> Result:
        """An earlier stage's result, which every recipe asks for."""
        return model.model_validate(self.finished[name].result)

    def model(self) -> torch.nn.Module:
        """The network in float, trained when the recipe trains it."""
        from bitwright.experiments.workbench import load_weights

        model = self.bench.new_model()
        if "train" in self.finished:
            load_weights(model, self.file("train", "weights.safetensors"))
        return model

    def file(self, stage: str, name: str) -> Path:
        """A file that an earlier stage wrote."""
        return self.finished[stage].folder / name
