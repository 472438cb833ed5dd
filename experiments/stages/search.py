"""Searches for better networks: architecture × formats, the infeasible ones refused before any training."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.experiments.recipe import Recipe
from bitwright.experiments.recipe_search import Search
from bitwright.experiments.search_result import Ranks, SearchResult
from bitwright.experiments.stage import Context, Stage
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.experiments.console import Console
    from bitwright.experiments.search_workload import RecipeWorkload
    from bitwright.nas.result import Result
    from bitwright.nas.search_outcome import SearchOutcome, Told
    from bitwright.nas.settings import SearchSettings
    from bitwright.nas.workers import Workers
    from bitwright.nas.workload import Inherited


def search_networks(context: Context) -> SearchResult:
    """Searches, or goes on where an interrupted search stopped.

    The study outlives an interruption, so it is in the run's folder and not in the stage's.
    """
    from bitwright.experiments.finalist_recipes import FOLDER, FinalistWriter
    from bitwright.experiments.metrics import UNITS
    from bitwright.experiments.search_text import recipes_text
    from bitwright.experiments.search_workload import RecipeWorkload
    from bitwright.nas.earlier import earlier_results
    from bitwright.nas.from_scratch import ranks
    from bitwright.nas.latency import device_name, timed_runtimes

    recipe = context.recipe
    assert recipe.search is not None
    workload = RecipeWorkload(recipe)
    others = [RecipeWorkload(recipe.model_copy(update={"target": each})) for each in recipe.search.targets]
    settings, space = search_settings(recipe), workload.space
    # Before anything dear: what is wrong with these would show only when the supernet has been trained.
    earlier = earlier_results(map(Path, recipe.search.earlier), space, settings.objectives)
    inherited = _inherited(workload, study_folder(context.run_folder.absolute()), context.console)
    with _workers(recipe.search, context.console) as workers:
        outcome = _search(context, (workload, *others), settings, inherited, earlier, workers)
        outcome, failed = _from_scratch(context, (workload, *others), outcome, workers)
    timed = timed_runtimes((workload, *others)) if settings.wants_latency else ()
    metric, found = recipe.evaluate.metric, ranks(outcome)
    writer = FinalistWriter((workload, *others), space, context.run_folder / FOLDER, inherited, failed)
    return SearchResult.of(
        outcome,
        metric=metric,
        unit=UNITS.get(metric, "1") if recipe.evaluate.entry is None else "1",
        device=device_name(*timed) if timed else "",
        finalists=writer.front(outcome),
        recipes=recipes_text(recipe),
        ranks=None if found is None else Ranks(tau=found.tau, low=found.low, high=found.high, n=found.n),
        limits=writer.limits(outcome),
    )


def _search(
    context: Context,
    workloads: Sequence[RecipeWorkload],
    settings: SearchSettings,
    inherited: Inherited | None,
    earlier: Sequence[Result],
    workers: Workers | None,
) -> SearchOutcome:
    """The search itself, with its progress on the console."""
    from bitwright.experiments.search_progress import SearchProgress, ways_to_watch
    from bitwright.nas.figures import is_more_better
    from bitwright.nas.search import search

    asked, folder = context.recipe.search, study_folder(context.run_folder.absolute())
    assert asked is not None
    first, *others = workloads
    maximize = [is_more_better(name, higher_is_better=first.higher_is_better) for name in settings.objectives]
    progress = SearchProgress(settings.objectives, maximize)
    for line in ways_to_watch(study_folder(context.run_folder), asked.storage, getattr(workers, "dashboard", None)):
        context.console.say(f"    {line}")
    with context.console.track("searching, candidates", asked.trials) as advance:

        def show(told: Told) -> None:
            progress.add(told)
            advance(progress.counts.total(), progress.text)

        return search(
            first.space,
            first,
            settings,
            folder,
            others=others,
            inherited=inherited,
            earlier=earlier,
            workers=workers,
            database=asked.storage,
            name=_study_name(context.recipe, folder),
            on_told=show,
            on_wait=context.console.say,
        )


def _from_scratch(
    context: Context, workloads: Sequence[RecipeWorkload], outcome: SearchOutcome, workers: Workers | None
) -> tuple[SearchOutcome, dict[str, str]]:
    """The outcome with what its front scores when `search.finalists` trains it, and why some of it does not."""
    from bitwright.nas.from_scratch import trained_from_scratch, with_scores
    from bitwright.nas.objective import evaluate
    from bitwright.nas.workers import InProcess

    asked = context.recipe.search
    assert asked is not None
    if asked.finalists is None:
        return outcome, {}
    done: list[Result] = []
    with context.console.track("training the front from scratch", len(outcome.front)) as advance:

        def show(result: Result) -> None:
            done.append(result)
            advance(len(done))

        found = trained_from_scratch(
            outcome.front,
            workloads[0].space,
            [each.from_scratch() for each in workloads],
            study_folder(context.run_folder.absolute()),
            workers or InProcess(evaluate),
            weights=asked.weights,
            on_done=show,
        )
    failed = {key: f"training it from scratch failed: {each.reason}" for key, each in found.items() if each.reason}
    return with_scores(outcome, found), failed


def _inherited(workload: RecipeWorkload, folder: Path, console: Console) -> Inherited | None:
    """The supernet, trained; None where the recipe has none."""
    asked = workload.search.supernet
    if asked is None:
        return None
    from bitwright.experiments.search_supernet import trained_supernet

    console.say(f"    supernet  {asked.epochs} epochs for all candidates at once → {folder / 'supernet'}")
    return trained_supernet(workload, workload.space, asked, folder / "supernet", elastic=workload.elastic)


def _workers(asked: Search, console: Console) -> AbstractContextManager[Workers | None]:
    """Who evaluates; None is this process."""
    if asked.scheduler is None and asked.workers == 0:
        return nullcontext()
    from bitwright.nas.cluster import local_cluster, remote_cluster

    if asked.scheduler is not None:
        return remote_cluster(asked.scheduler, on_wait=console.say)
    return local_cluster(asked.workers, on_wait=console.say)


def search_settings(recipe: Recipe) -> SearchSettings:
    """What the recipe says about the search itself.

    Raises:
        InputError: its parts contradict each other.
    """
    from bitwright.experiments.recipe import AGREEMENT
    from bitwright.nas.settings import SearchSettings

    assert recipe.search is not None
    if recipe.search.rungs and recipe.evaluate.metric == AGREEMENT:
        raise InputError(
            f"search.rungs = {list(recipe.search.rungs)}: evaluate.metric = {AGREEMENT!r} compares with the float "
            "network, so no float network can be scored by it; name a metric of labels, or leave rungs out"
        )
    return SearchSettings(
        trials=recipe.search.trials,
        sampler=recipe.search.sampler,
        seed=recipe.seed,
        objectives=recipe.search.objectives,
        limits=recipe.search.limits.model_dump(exclude_none=True),
        threads=recipe.measure.threads,
        table=None if recipe.search.table is None else Path(recipe.search.table).absolute(),
        batch=recipe.search.batch,
        figures=recipe.search.figures,
        weights=recipe.search.weights,
        give_up=recipe.search.give_up,
        screened=recipe.search.screened,
        rungs=recipe.search.rungs,
    )


def _tables(recipe: Recipe) -> tuple[str, ...]:
    return () if recipe.search is None or recipe.search.table is None else (recipe.search.table,)


def study_folder(run: Path) -> Path:
    """Where the study is; scores by other code do not mix, so each version of the code has its own."""
    from bitwright.experiments.stage_store import code_hash

    return run / f"search-{code_hash(STAGE)[:8]}"


def _study_name(recipe: Recipe, folder: Path) -> str:
    return f"{recipe.name}-{folder.name}"


def set_study_aside(recipe: Recipe, run: Path, console: Console) -> str | None:
    """Keeps the study of a run under another name, so that the next search begins a new one.

    Returns:
        What it is called now; None when there is none.
    """
    from bitwright.nas.fork import set_aside

    assert recipe.search is not None
    folder = study_folder(run.absolute())
    database, name = recipe.search.storage, _study_name(recipe, folder)
    return set_aside(folder, database=database, name=name, on_wait=console.say)


STAGE = Stage(
    name="search",
    run=search_networks,
    result=SearchResult,
    reads=(
        "model", "data", "example_inputs", "target", "evaluate.entry", "evaluate.metric", "evaluate.direction",
        "evaluate.samples", "calibrate", "quantize", "measure.runtimes", "measure.threads", "prove.runtimes", "search",
    ),
    reads_data=True,
    reads_machine=True,
    reads_files=_tables,
    code=(
        "bitwright.nas", "bitwright.hw_constraints.backends", "bitwright.hw_constraints.measure",
        "bitwright.hw_constraints.rules", "bitwright.hw_constraints.lint", "bitwright.quant",
        "bitwright.hw_constraints.cost", "bitwright.hw_constraints.lower", "bitwright.qat.sparsity",
        "bitwright.experiments.search_workload", "bitwright.experiments.sparse_blocks",
        "bitwright.experiments.supernet_task",
        "bitwright.experiments.training", "bitwright.experiments.evaluation", "bitwright.experiments.runtime_model",
        "bitwright.experiments.models", "bitwright.experiments.datasets",
    ),
    packages=("torch", "onnxruntime", "openvino", "optuna"),
    wanted=lambda recipe: recipe.search is not None,
)  # fmt: skip
