"""What a person looks at after a search, for TensorBoard: curves over trials, pictures, tables, hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bitwright.nas import pareto
from bitwright.nas.figures import FIGURES
from bitwright.nas.result import Outcome, Result
from bitwright.nas.review_importance import Importance
from bitwright.nas.review_pictures import draw_importance, draw_parallel, figure_label, growing_front
from bitwright.nas.review_stages import stage_tolls
from bitwright.nas.search_outcome import SearchOutcome, why_infeasible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 200  # of the table of hyperparameters: each is a file, and TensorBoard reads them all before it shows any


class Writer(Protocol):
    """The part of `torch.utils.tensorboard.SummaryWriter` that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Writes one number."""

    def add_figure(self, tag: str, figure: Figure, global_step: int = ...) -> None:
        """Writes a picture."""

    def add_text(self, tag: str, text_string: str) -> None:
        """Writes Markdown."""

    def add_hparams(
        self,
        hparam_dict: dict[str, Any],
        metric_dict: dict[str, float],
        hparam_domain_discrete: dict[str, list[Any]],
        run_name: str,
    ) -> None:
        """Writes a row of the table of hyperparameters."""


def write_review(writer: Writer, outcome: SearchOutcome, importance: Sequence[Importance] = ()) -> None:
    """Writes a search to TensorBoard.

    Args:
        writer: its own run; rows of hyperparameters become runs below it.
        outcome: with something scored.
        importance: of each objective, see `importance_of_choices`.
    """
    growth = hypervolume_by_trial(outcome)
    for trial, volume in zip(outcome.trials, growth, strict=True):
        writer.add_scalar("search/hypervolume", volume, trial.number)
        if trial.result.outcome is Outcome.SCORED:
            for name in outcome.objectives:
                writer.add_scalar(f"search/{name}", trial.result.figures[name], trial.number)
    if len(outcome.objectives) > 1:
        for number, figure in growing_front(outcome):
            writer.add_figure("search/front", figure, number)
    if len({outcome.losses(each) for each in outcome.scored}) > 1:
        writer.add_figure("search/parallel", draw_parallel(outcome, importance), outcome.trials[-1].number)
    if any(each.choices for each in importance):
        writer.add_figure("search/importance", draw_importance(importance), outcome.trials[-1].number)
    writer.add_text("search/front", front_table(outcome))
    writer.add_text("search/infeasible", infeasible_table(outcome))
    writer.add_text("search/stages", stage_table(outcome))
    _write_rows(writer, outcome)


def _write_rows(writer: Writer, outcome: SearchOutcome) -> None:
    """The front and the latest others, as hyperparameters with their figures."""
    front = outcome.front
    others = [each for each in reversed(outcome.scored) if each not in front]
    rows = [*front, *others][:_MOST_ROWS]
    domains = {
        name: list(dict.fromkeys(each.values[name] for each in rows if name in each.values)) for name in _choices(rows)
    }
    for each in rows:
        figures = {f"hparam/{name}": each.figures[name] for name in FIGURES if name in each.figures}
        metrics = {**figures, "hparam/on_front": float(each in front)}
        writer.add_hparams(dict(each.values), metrics, domains, each.key)


def hypervolume_by_trial(outcome: SearchOutcome) -> list[float]:
    """After each trial, the share of the box between the best and the worst score of each objective that is covered.

    Objectives are scaled to that box first; 0 before the second different score.
    """
    scored = [outcome.losses(each) for each in outcome.scored]
    low = [min(column) for column in zip(*scored, strict=True)]
    high = [max(column) for column in zip(*scored, strict=True)]

    def scaled(point: Sequence[float]) -> tuple[float, ...]:
        return tuple((p - a) / (b - a) if b > a else 0.0 for p, a, b in zip(point, low, high, strict=True))

    front: list[tuple[float, ...]] = []
    volumes, volume = [], 0.0
    for trial in outcome.trials:
        if not trial.repeated and trial.result.outcome is Outcome.SCORED:
            point = scaled(outcome.losses(trial.result))
            if not any(each == point or pareto.dominates(each, point) for each in front):
                front = [each for each in front if not pareto.dominates(point, each)] + [point]
                volume = pareto.hypervolume(front, [1.0] * len(low))
        volumes.append(volume)
    return volumes


def front_table(outcome: SearchOutcome) -> str:
    """The front as a Markdown table: the choices and the figures of each candidate."""
    front = outcome.front
    parameters = _choices(front)
    figures = [name for name in FIGURES if any(name in each.figures for each in front)]
    rows = [
        [
            each.key,
            *(str(each.values.get(name, "")) for name in parameters),
            *(f"{each.figures[name]:.5g}" if name in each.figures else "" for name in figures),
        ]
        for each in front
    ]
    return _table(["candidate", *parameters, *map(figure_label, figures)], rows)


def infeasible_table(outcome: SearchOutcome) -> str:
    """Which constraint refused how many, as a Markdown table with an example each."""
    return _table(
        ["constraint", "candidates", "example"],
        [[name, str(count), example] for name, count, example in why_infeasible(outcome.results)],
    )


def stage_table(outcome: SearchOutcome) -> str:
    """How far candidates got, and what each stage took, as a Markdown table."""
    return _table(
        ["stage", "candidates", "ended here", "seconds"],
        [
            [
                each.stage,
                str(each.reached),
                ", ".join(f"{count} {what}" for what, count in each.ended.items()),
                f"{each.seconds:.1f}",
            ]
            for each in stage_tolls(outcome.results)
        ],
    )


def _choices(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for each in results for name in each.values))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
