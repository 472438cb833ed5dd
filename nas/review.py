"""What a person looks at after a search: the front as a picture, curves over trials, why candidates died."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from bitwright.nas import pareto
from bitwright.nas.figures import FIGURES
from bitwright.nas.result import Outcome
from bitwright.nas.search_outcome import SearchOutcome, why_infeasible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Writer(Protocol):
    """The part of `torch.utils.tensorboard.SummaryWriter` that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Writes one number."""

    def add_figure(self, tag: str, figure: Figure) -> None:
        """Writes a picture."""

    def add_text(self, tag: str, text_string: str) -> None:
        """Writes Markdown."""


def write_review(writer: Writer, outcome: SearchOutcome) -> None:
    """Writes a search to TensorBoard: each objective by trial, the growing hypervolume, the front, two tables."""
    growth = hypervolume_by_trial(outcome)
    for trial, volume in zip(outcome.trials, growth, strict=True):
        writer.add_scalar("search/hypervolume", volume, trial.number)
        if trial.result.outcome is Outcome.SCORED:
            for name in outcome.objectives:
                writer.add_scalar(f"search/{name}", trial.result.figures[name], trial.number)
    if len(outcome.objectives) > 1:
        writer.add_figure("search/front", draw_front(outcome))
    writer.add_text("search/front", front_table(outcome))
    writer.add_text("search/infeasible", infeasible_table(outcome))


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
    volumes = []
    for trial in outcome.trials:
        if not trial.repeated and trial.result.outcome is Outcome.SCORED:
            front.append(scaled(outcome.losses(trial.result)))
            front = [front[index] for index in pareto.non_dominated(front)]
        volumes.append(pareto.hypervolume(front, [1.0] * len(low)))
    return volumes


def draw_front(outcome: SearchOutcome) -> Figure:
    """The first objective over the second one: all scores, the front as a line; later candidates are darker."""
    from matplotlib.figure import Figure as NewFigure

    vertical, horizontal = outcome.objectives[:2]
    scored = outcome.scored
    front = sorted(outcome.front, key=lambda each: each.figures[horizontal])
    figure = NewFigure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    points = axes.scatter(
        [each.figures[horizontal] for each in scored],
        [each.figures[vertical] for each in scored],
        c=range(len(scored)),
        cmap="Blues",
        edgecolors="black",
        label=f"{len(scored)} scored",
        zorder=2,
    )
    axes.plot(
        [each.figures[horizontal] for each in front],
        [each.figures[vertical] for each in front],
        "o-",
        drawstyle="steps-post",  # what can be had for so much; nothing is known between two candidates
        color="tab:orange",
        markersize=11,
        markerfacecolor="none",
        label=f"{len(front)} on the front",
        zorder=3,
    )
    dead = [each for each in outcome.results if each.outcome is Outcome.INFEASIBLE]
    spared = sum(not each.trained_seconds for each in dead)
    title = f"{len(dead)} infeasible, {spared} of them without any training"
    axes.set(xlabel=_label(horizontal), ylabel=_label(vertical), title=title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.colorbar(points, ax=axes, label="order of evaluation")
    return figure


def _label(name: str) -> str:
    kind = FIGURES[name]
    return f"{name} ({kind.unit}, {kind.origin})"


def front_table(outcome: SearchOutcome) -> str:
    """The front as a Markdown table: the choices and the figures of each candidate."""
    front = outcome.front
    parameters = list(front[0].values)
    figures = [name for name in FIGURES if name in front[0].figures]
    rows = [
        [each.key, *map(str, each.values.values()), *(f"{each.figures[name]:.5g}" for name in figures)]
        for each in front
    ]
    return _table(["candidate", *parameters, *map(_label, figures)], rows)


def infeasible_table(outcome: SearchOutcome) -> str:
    """Which constraint refused how many, as a Markdown table with an example each."""
    return _table(
        ["constraint", "candidates", "example"],
        [[name, str(count), example] for name, count, example in why_infeasible(outcome.results)],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
