"""Runs a recipe: stage by stage, each one only when what it follows from has changed."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright.experiments import host as host_facts
from bitwright.experiments.console import Console
from bitwright.experiments.extensions import STAGES
from bitwright.experiments.ingredients import IngredientsOf
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.record import Gate, Record, StageRecord
from bitwright.experiments.run_folder import RECORD, claim
from bitwright.experiments.stage import Context, FinishedStage, Stage
from bitwright.experiments.stage_store import Ingredients, StageStore, replace_file
from bitwright.experiments.views import write_views
from bitwright.experiments.workbench import Workbench
from bitwright.quant.errors import InputError, unknown

_NOT_ASKED_FOR = "the recipe does not ask for it"


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    again: Sequence[str] = (),
    until: str | Sequence[str] | None = None,
    console: Console | None = None,
) -> Record:
    """Runs a recipe in a folder, or goes on where an earlier run stopped.

    Args:
        recipe: the checked recipe.
        folder: where results go; see `run_folder.claim`.
        again: stages to run even when nothing has changed; those behind them follow.
        until: the last stage to run, or several, with all that they need; None for the whole recipe.
        console: where progress goes.

    Returns:
        The record, which is in `folder/record.json`, too.

    Raises:
        InputError: something the user gave is wrong, the disk is full, or the folder is not free.
    """
    stages = load_stages()
    last = [until] if isinstance(until, str) else list(until or ())
    for name in (*again, *last):
        if name not in {stage.name for stage in stages}:
            raise unknown("stage", name, [stage.name for stage in stages])
    if last:
        stages = needed_for(last, stages)
    with claim(folder, recipe) as store:
        run = _Run(recipe, folder, store, stages, frozenset(again), console or Console())
        record = run.execute()
        if not last and (recipe.report.html or recipe.report.tensorboard):
            run.console.say("  report …")
            write_views(folder, html=recipe.report.html, tensorboard=recipe.report.tensorboard)
        return record


def load_stages() -> tuple[Stage, ...]:
    """All stages in an order in which each comes behind those it needs.

    Raises:
        InputError: a stage needs one that is not there, or they need each other.
    """
    waiting = {name: STAGES.load(name) for name in STAGES.names()}
    ordered: list[Stage] = []
    while waiting:
        placed = {stage.name for stage in ordered}
        ready = [stage for stage in waiting.values() if placed.issuperset(stage.needs)]
        if not ready:
            raise InputError(f"stages {sorted(waiting)} need stages that are missing, or each other")
        ordered.extend(ready)
        waiting = {name: stage for name, stage in waiting.items() if stage not in ready}
    return tuple(ordered)


def needed_for(names: Collection[str], stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages that lead to some, and themselves."""
    wanted = set(names)
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.needs)
    return tuple(stage for stage in stages if stage.name in wanted)


@dataclass
class _Run:
    recipe: Recipe
    folder: Path
    store: StageStore
    stages: Sequence[Stage]
    again: frozenset[str]
    console: Console
    finished: dict[str, FinishedStage] = field(default_factory=dict)
    records: dict[str, StageRecord] = field(default_factory=dict)
    started: str = field(default_factory=lambda: _now())

    def execute(self) -> Record:
        for stage in self.stages:
            if not stage.wanted(self.recipe):
                self.records[stage.name] = StageRecord(status="skipped", reason=_NOT_ASKED_FOR)
                continue
            self._finish(stage)
            self._write(None)
        return self._write(_now())

    def _finish(self, stage: Stage) -> None:
        ingredients = self._ingredients(stage)
        earlier = self.store.find(stage.name)
        if earlier and earlier[0].key == ingredients.key and stage.name not in self.again:
            self.console.say(f"  {stage.name}: as before")
            self._keep(stage.name, earlier[0], "reused", "")
            return
        reason = f"changed: {ingredients.changed_since(earlier[1])}" if earlier else ""
        self.console.say(f"  {stage.name} …" + (f" ({reason})" if reason else ""))
        began = time.monotonic()
        done = self._run_stage(stage, ingredients, began)
        self.console.say(f"  {stage.name}: {time.monotonic() - began:.1f} s")
        self._keep(stage.name, done, "done", reason)

    def _run_stage(self, stage: Stage, ingredients: Ingredients, began: float) -> FinishedStage:
        context = Context(
            recipe=self.recipe,
            folder=self.store.begin(stage.name),
            bench=self.bench,
            console=self.console,
            run_folder=self.folder,
            finished=dict(self.finished),
        )
        try:
            result = stage.run(context).model_dump(mode="json")
            return self.store.commit(stage.name, ingredients, result, time.monotonic() - began)
        except BaseException as error:
            self.store.abandon(stage.name)
            if disk_is_full(error):
                raise InputError(
                    f"{self.folder}: no space left on the disk while stage {stage.name!r} was writing; free some and "
                    "run the same command again: finished stages are kept"
                ) from error
            if isinstance(error, SystemExit):
                error = InputError(_ended(stage.name, error))
            if isinstance(error, InputError):
                self.records[stage.name] = StageRecord(status="failed", reason=str(error))
                self._write(_now())
            raise error

    def _ingredients(self, stage: Stage) -> Ingredients:
        return self.ingredients_of.stage(stage, {name: done.key for name, done in self.finished.items()})

    def _keep(self, name: str, done: FinishedStage, status: Any, reason: str) -> None:
        self.finished[name] = done
        self.records[name] = StageRecord(
            status=status,
            key=done.key,
            seconds=round(done.seconds, 3),
            files=tuple(f"stages/{name}/{file}" for file in done.files),
            result=dict(done.result),
            reason=reason,
        )

    def _write(self, finished: str | None) -> Record:
        gates = tuple(gates_of(self.records))
        complete = finished is not None and not any(each.status == "failed" for each in self.records.values())
        record = Record(
            name=self.recipe.name,
            description=self.recipe.description,
            target=self.recipe.target,
            seed=self.recipe.seed,
            started=self.started,
            finished=finished,
            versions=self.ingredients_of.versions,
            git=self.git,
            host=self.ingredients_of.host,
            recipe=self.recipe.model_dump(mode="json"),
            stages=self.records,
            gates=gates,
            passed=all(gate.holds is not False for gate in gates) if complete else None,
        )
        replace_file(self.folder / RECORD, record.model_dump_json(indent=1) + "\n")
        return record

    @cached_property
    def bench(self) -> Workbench:
        return Workbench(self.recipe)

    @cached_property
    def ingredients_of(self) -> IngredientsOf:
        return IngredientsOf(self.recipe, self.bench)

    @cached_property
    def git(self) -> Any:
        return host_facts.git_state(Path.cwd())


def gates_of(stages: Mapping[str, StageRecord]) -> list[Gate]:
    """The gates that the stages' results hold."""
    return [Gate.model_validate(gate) for each in stages.values() for gate in each.result.get("gates", ())]


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is no space left.

    Libraries that write in C++ or Rust wrap the errno in a text of their own.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if not isinstance(error, InputError) and "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _ended(stage: str, error: SystemExit) -> str:
    """That somebody's code ended the process, and at which line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"stage {stage!r}: SystemExit({error.code!r}): something that it called ends the process; raise an error "
        f"instead\n  at {last.filename}:{last.lineno}: {last.line}"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
