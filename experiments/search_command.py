"""What `bitwright search` does: the search stage of a recipe alone, its views, and the front as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitwright.experiments.console import Console
from bitwright.experiments.figure_text import format_value
from bitwright.experiments.finalist_recipes import FOLDER
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.read_run import result_of
from bitwright.experiments.record import Record
from bitwright.experiments.run import run_recipe
from bitwright.experiments.search_progress import ways_to_watch
from bitwright.experiments.search_result import SearchResult
from bitwright.experiments.search_text import figure_names, figures_of, importance_text, limit_text, ranks_text
from bitwright.experiments.stages.search import set_study_aside, study_folder
from bitwright.experiments.summary import where_to_look
from bitwright.experiments.tables import print_table
from bitwright.experiments.views import write_views
from bitwright.nas.result import Outcome
from bitwright.nas.review_importance import leading_choices
from bitwright.nas.search_outcome import SearchOutcome, why_infeasible
from bitwright.quant.errors import InputError

_CHOICES = 8  # beside the figures in a terminal's table; recipes have all


def run_search(
    name: str, overrides: Sequence[str], out: Path | None, *, fork: bool = False, quiet: bool
) -> tuple[Record, Path]:
    """Runs the search of a recipe, or goes on with it, and writes the report and TensorBoard's files.

    Raises:
        InputError: the recipe has no search, or anything that `run_recipe` refuses.
    """
    recipe = load_recipe(name, overrides)
    if recipe.search is None:
        raise InputError(f"recipe {recipe.name!r} has no search section; add one, such as that of recipe digits_search")
    folder = out or Path("runs") / recipe.name
    console = Console(quiet=quiet)
    console.say(f"{recipe.name} → {folder} (target {recipe.target})")
    if fork and (aside := set_study_aside(recipe, folder, console)) is not None:
        console.say(f"the study before is kept: {aside}")
    record = run_recipe(recipe, folder, until="search", console=console)
    write_views(folder, html=recipe.report.html, tensorboard=recipe.report.tensorboard)
    return record, folder


def print_front(record: Record, folder: Path) -> None:
    """The front, what refused the others, and where to look."""
    result = result_of(record, "search", SearchResult)
    assert result is not None
    outcome = result.outcome
    print_table(*front_table(result, outcome))
    print()
    print(counted(outcome))
    for constraint, count, example in why_infeasible(outcome.results):
        print(f"  {constraint} refused {count}, for example: {example}")
    for limit in result.limits:
        print(f"  {limit_text(result, limit, folder)}")
    for importance in result.importance:
        print(f"  {importance_text(result, importance)}")
    if said := ranks_text(result):
        print(f"  {said}")
    print()
    for finalist in result.finalists:
        if finalist.problem:
            print(f"  candidate {finalist.key} has no recipe that makes it again: {finalist.problem}")
    if any(each.recipes for each in result.finalists):
        print(f"recipes   {folder / FOLDER}/*.yaml {result.recipes}")
    for line in (*where_to_look(record, folder), *ways_to_watch(study_folder(folder), storage_of(record))):
        print(line)


def front_table(result: SearchResult, outcome: SearchOutcome) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: candidate, figures with where they come from, and choices as far as there is room."""
    front = outcome.front
    names, figures = figure_names(result, front), [figures_of(result, each) for each in front]
    choices = list(dict.fromkeys(name for each in front for name in each.values))
    if len(choices) > _CHOICES:
        choices = leading_choices(outcome, result.importance)[:_CHOICES]
    heads = [f"{name} ({next(each[name].origin for each in figures if name in each)})" for name in names]
    rows = [
        [
            each.key,
            *(format_value(own[name].value, own[name].unit) if name in own else "" for name in names),
            *(str(each.values.get(name, "")) for name in choices),
        ]
        for each, own in zip(front, figures, strict=True)
    ]
    return ["candidate", *heads, *choices], rows


def storage_of(record: Record) -> str | None:
    """The database that the recipe names; None is SQLite in the run's folder."""
    search = record.recipe.get("search") or {}
    return search.get("storage")


def counted(outcome: SearchOutcome) -> str:
    """How many candidates there were, and what was spent on those that were refused."""
    infeasible = [each for each in outcome.results if each.violations]
    untrained = [each for each in infeasible if not each.trained_seconds]
    beaten = sum(each.outcome is Outcome.BEATEN for each in outcome.results)
    given_up = f", {beaten} given up" if beaten else ""
    return (
        f"{len(outcome.results)} candidates, {len(outcome.scored)} scored{given_up}, "
        f"{len(outcome.front)} on the front; "
        f"{len(infeasible)} infeasible, {len(untrained)} of them with no training at all"
    )
