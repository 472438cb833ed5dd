"""Climbs the ladder until the gate holds; every try is a run of its recipe, so the recipe gives the artefact again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.experiments.auto.deadline import DeadlineConsole, TimeIsUp
from bitwright.experiments.auto.judging import ended, judged, mix_in_words, nearness, worst_tensor
from bitwright.experiments.auto.ladder import Best, Rung, Subject, changed, ladder, plain
from bitwright.experiments.auto.result import AutoResult, Skipped, Try
from bitwright.experiments.auto.text import outcome, say_skipped, say_try
from bitwright.experiments.auto.tries import FOLDER, Tries
from bitwright.experiments.console import Console
from bitwright.experiments.ingredients import IngredientsOf
from bitwright.experiments.recipe import AccuracyGate, Recipe
from bitwright.experiments.record import Record, StageRecord
from bitwright.experiments.results import EvaluateResult, QuantizeResult
from bitwright.experiments.run import load_stages, needed_for, run_recipe
from bitwright.experiments.run_folder import RECORD
from bitwright.experiments.stage_store import replace_file
from bitwright.experiments.views import write_views
from bitwright.experiments.workbench import Workbench
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.quant.captured_model import CapturedModel

STAGE = "auto"
_LAST = ("evaluate", "export")


def quantize_auto(recipe: Recipe, folder: Path, *, minutes: float, console: Console) -> tuple[Record, AutoResult]:
    """Finds the cheapest method that keeps the recipe's accuracy gate, and leaves its run in the folder.

    The folder then holds `recipe.resolved.yaml` (which gives the same codes again), the artefacts of the stages
    `quantize` and `export`, `record.json` with the search under `stages.auto`, and the report. Where no try keeps the
    gate it is the nearest one's.

    Args:
        recipe: whose `evaluate.gate` decides; what it says of biases, equalization, rounding and mixed formats is
            what the search chooses.
        folder: of the run; finished tries in it are used again.
        minutes: how long to try; training is not counted, and a try that is interrupted goes on at the next call.
        console: progress, and a line for each try.

    Raises:
        InputError: no gate, no time, or anything that `run_recipe` refuses of the first try.
    """
    _check(recipe.evaluate.gate, minutes)
    return _Search(recipe, folder, minutes, console).run()


def _check(gate: AccuracyGate, minutes: float) -> None:
    if gate == AccuracyGate():
        raise InputError(
            "--auto needs to know what is good enough: give --max-drop, --min-agreement or --min-sqnr, or a recipe "
            "with evaluate.gate"
        )
    if not 0 < minutes < float("inf"):
        raise InputError(f"--minutes = {minutes:g}; expected a number above 0")


@dataclass
class _Search:
    recipe: Recipe
    folder: Path
    minutes: float
    console: Console
    tries: list[Try] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def run(self) -> tuple[Record, AutoResult]:
        if self.recipe.train is not None:
            run_recipe(changed(self.recipe, plain(self.recipe)), self.folder, until="train", console=self.console)
        self.began = time.monotonic()
        best = Best(self.recipe)
        for rung in ladder(self.subject):
            useless = rung.useless() if self.tries else ""
            if useless:
                self.skipped.append(Skipped(rung=rung.name, reason=useless))
                say_skipped(self.console, self.skipped[-1])
                continue
            done, recipe = self._try(rung, best)
            self.tries.append(done)
            self.recipes.append(recipe)
            say_try(self.console, done, len(self.tries))
            if done.status in ("passed", "stopped"):
                break
            found = done.evaluated
            if found is not None and not rung.costs_on_device and found.sqnr.value > best.sqnr_db:
                best = Best(recipe, found.sqnr.value, done.worst_activation, done.worst_weight)
        return self._finish()

    def _try(self, rung: Rung, best: Best) -> tuple[Try, Recipe]:
        recipe = changed(best.recipe, rung.changes(best))
        blank = Try(
            rung=rung.name, what=rung.what, why=rung.why(best), status="refused", settings=rung.changes(best)
        )  # fmt: skip
        until = self.began + 60 * self.minutes
        if time.monotonic() > until:
            return ended(blank, "stopped", "the time was up before it began"), recipe
        try:
            return self._known_or_run(blank, recipe, DeadlineConsole(quiet=self.console.quiet, until=until)), recipe
        except TimeIsUp:
            return ended(blank, "stopped", "the time was up; the same command goes on with it"), recipe
        except InputError as error:
            if not any(each.is_scored for each in self.tries):
                raise
            return ended(blank, "refused", str(error)), recipe

    def _known_or_run(self, blank: Try, recipe: Recipe, console: Console) -> Try:
        key = IngredientsOf(recipe, Workbench(recipe)).keys(needed_for(["evaluate"], load_stages()))["evaluate"]
        tries = Tries(self.folder)
        done = tries.find(key)
        if done is None:
            record = run_recipe(recipe, self.folder, until="evaluate", console=console)
            quantized = QuantizeResult.model_validate(record.stages["quantize"].result)
            done = blank.model_copy(
                update={
                    "key": key,
                    "seconds": sum(record.stages[name].seconds for name in ("quantize", "evaluate")),
                    "evaluated": EvaluateResult.model_validate(record.stages["evaluate"].result),
                    "calibrated": quantized.samples,
                    "worst_activation": worst_tensor(quantized.tensors, "activation"),
                    "worst_weight": worst_tensor(quantized.tensors, "weight"),
                    "mix": mix_in_words(quantized.mixed),
                }
            )
            tries.keep(done)
        return judged(done.model_copy(update={"why": blank.why}), recipe)

    @cached_property
    def subject(self) -> Subject:
        bench = Workbench(self.recipe)

        def captured() -> CapturedModel:
            from bitwright.quant.capture import capture

            model = bench.new_model()  # the ladder asks about its structure alone, so untrained weights do
            return capture(model, bench.example(model))

        return Subject(self.recipe, bench.target, captured)

    def _finish(self) -> tuple[Record, AutoResult]:
        scored = [place for place, each in enumerate(self.tries) if each.is_scored]
        if not scored:
            raise InputError(
                f"--minutes = {self.minutes:g}: the time was up before the first try was scored; what it did is kept: "
                "run the same command again, or give more"
            )
        chosen = min(scored, key=lambda place: nearness(self.tries[place]))
        spent = (time.monotonic() - self.began) / 60
        record = run_recipe(self.recipes[chosen], self.folder, until=_LAST, console=self.console)
        passed = self.tries[chosen].status == "passed"
        result = AutoResult(
            tries=tuple(self.tries),
            skipped=tuple(self.skipped),
            chosen=chosen,
            passed=passed,
            minutes=self.minutes,
            spent_minutes=round(spent, 3),
            text=outcome(self.tries, chosen, self.minutes),
        )
        return self._write(record, result), result

    def _write(self, record: Record, result: AutoResult) -> Record:
        """The run's record with the search in it, and the views of both."""
        files = tuple(f"{FOLDER}/{each.key}.json" for each in result.tries if each.is_scored)
        found = StageRecord(
            status="done", seconds=60 * result.spent_minutes, files=files, result=result.model_dump(mode="json")
        )  # fmt: skip
        gates = result.tries[result.chosen].gates
        update = {"stages": {**record.stages, STAGE: found}, "gates": gates, "passed": result.passed}
        record = record.model_copy(update=update)
        replace_file(self.folder / RECORD, record.model_dump_json(indent=1) + "\n")
        report = self.recipe.report
        if report.html or report.tensorboard:
            write_views(self.folder, html=report.html, tensorboard=report.tensorboard)
        return record
