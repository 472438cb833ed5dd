"""What `bitwright quantize --auto` does: a recipe or a network by its entry, with the gate of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitwright.experiments.auto.result import AutoResult
from bitwright.experiments.auto.search import quantize_auto
from bitwright.experiments.console import Console
from bitwright.experiments.datasets import Split
from bitwright.experiments.model_commands import recipe_of, with_export
from bitwright.experiments.recipe import AGREEMENT, AccuracyGate, Recipe
from bitwright.experiments.record import Record
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is good enough, as the command's options say it; None leaves it to the recipe.

    Attributes:
        max_drop: of the metric, in its unit.
        min_agreement: with the float network, in percent.
        min_sqnr: of the results, dB.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    min_sqnr: float | None = None

    @property
    def is_given(self) -> bool:
        """Whether there is any."""
        return self != Goal()

    def gate(self) -> AccuracyGate:
        """The same as a recipe's gate.

        Raises:
            InputError: a value that no network can meet or miss.
        """
        if self.max_drop is not None and not 0 <= self.max_drop < float("inf"):
            raise InputError(f"--max-drop = {self.max_drop:g}; expected a number of at least 0")
        if self.min_agreement is not None and not 0 < self.min_agreement <= 100:
            raise InputError(f"--min-agreement = {self.min_agreement:g}; expected percent, above 0 and at most 100")
        if self.min_sqnr is not None and not abs(self.min_sqnr) < float("inf"):
            raise InputError(f"--min-sqnr = {self.min_sqnr:g}; expected decibels, such as 25")
        share = None if self.min_agreement is None else self.min_agreement / 100
        return AccuracyGate(max_drop=self.max_drop, min_agreement=share, min_sqnr_db=self.min_sqnr)


def quantize_model_auto(
    model: str,
    target: str | None,
    data: str | None,
    out: Path | None,
    goal: Goal,
    *,
    export: str | None = None,
    minutes: float,
    console: Console,
) -> tuple[Record, AutoResult, Path]:
    """Searches; see `quantize_auto`.

    Args:
        model: `package.module:function` or a recipe.
        target: for a network by its entry, or in place of the recipe's.
        data: likewise.
        out: the run's folder.
        goal: what is good enough, in place of the recipe's gate.
        export: another exporter than the target's.
        minutes: how long to try.
        console: progress.

    Returns:
        The record, the search, and the run's folder.

    Raises:
        InputError: as `quantize_auto`.
    """
    recipe = with_export(recipe_of(model, target, data), export)
    if goal.is_given:
        recipe = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"gate": goal.gate()})})
    recipe = _with_some_held_out(_scorable(recipe, goal), console)
    folder = out or Path("runs") / f"{recipe.name}-auto"
    console.say(f"{recipe.name} → {folder} (target {recipe.target})")
    record, result = quantize_auto(recipe, folder, minutes=minutes, console=console)
    return record, result, folder


def _scorable(recipe: Recipe, goal: Goal) -> Recipe:
    """The recipe; with data without labels it is scored by agreement with the float network.

    Raises:
        InputError: a drop is asked for that nothing without labels can tell.
    """
    from bitwright.experiments.training import labels_of
    from bitwright.experiments.workbench import Workbench

    if recipe.evaluate.entry is not None or recipe.evaluate.metric == AGREEMENT:
        return recipe
    try:
        for batch in Workbench(recipe).data.loader(Split.EVALUATE, 1, None):
            labels_of(batch)
            break
        return recipe
    except InputError as error:
        if "without labels" not in str(error):
            raise
        if recipe.evaluate.gate.max_drop is not None or recipe.evaluate.gate.bound is not None:
            field = "--max-drop" if goal.max_drop is not None else "evaluate.gate"
            raise InputError(
                f"{field} needs labels, and the data have none ({error}); give --min-agreement or --min-sqnr instead"
            ) from None
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"metric": AGREEMENT})})


def _with_some_held_out(recipe: Recipe, console: Console) -> Recipe:
    """The recipe; where everything that is scored would calibrate as well, half of it is left to score."""
    from bitwright.experiments.held_out import row_hashes
    from bitwright.experiments.workbench import Workbench

    bench = Workbench(recipe)
    model = bench.new_model()
    calibrating = [each for arguments in bench.calibration(model) for each in row_hashes(arguments)]
    seen = set(calibrating)
    if len(calibrating) < 2 or any(
        each not in seen
        for arguments in bench.arguments(model, Split.EVALUATE, batch=1)
        for each in row_hashes(arguments)
    ):
        return recipe
    half = len(calibrating) // 2
    console.say(
        f"  calibrate.samples = {half}: the data give the same {len(calibrating)} samples to calibrate and to score"
    )
    return recipe.model_copy(update={"calibrate": recipe.calibrate.model_copy(update={"samples": half})})
