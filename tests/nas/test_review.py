from types import ModuleType
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bitwright.nas.result import Outcome
from bitwright.nas.review import draw_front, hypervolume_by_trial, write_review
from bitwright.nas.search_outcome import SearchOutcome, Told
from bitwright.nas.space import Candidate


@pytest.fixture(scope="module")
def outcome(synthetic: ModuleType) -> SearchOutcome:
    """Three that trade accuracy for work, one that is beaten, one that is refused, one that is repeated."""
    chosen = [(1, 2, "int8"), (2, 2, "int8"), (3, 2, "int16"), (2, 2, "float32"), (3, 3, "int8"), (1, 2, "int8")]
    trials, seen = [], set()
    for number, (width, depth, fmt) in enumerate(chosen):
        result = synthetic.result_of(Candidate({"width": width, "depth": depth, "format": fmt}))
        trials.append(Told(number=number, result=result, repeated=result.key in seen))
        seen.add(result.key)
    return SearchOutcome(trials=tuple(trials), objectives=("accuracy", "macs"), maximize=(True, False))


class Writer:
    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.figures: dict[str, Any] = {}
        self.texts: dict[str, str] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.scalars.append((tag, scalar_value, global_step))

    def add_figure(self, tag: str, figure: Any) -> None:
        self.figures[tag] = figure

    def add_text(self, tag: str, text_string: str) -> None:
        self.texts[tag] = text_string


def test_repeated_and_refused_trials_are_no_points(outcome: SearchOutcome) -> None:
    assert [each.values["width"] for each in outcome.scored] == [1, 2, 2, 3]
    assert len(outcome.results) == 5


def test_the_front_is_sorted_by_the_first_objective(outcome: SearchOutcome) -> None:
    accuracies = [each.figures["accuracy"] for each in outcome.front]
    assert accuracies == sorted(accuracies, reverse=True)


def test_the_hypervolume_grows_only_with_new_scores(outcome: SearchOutcome) -> None:
    volumes = hypervolume_by_trial(outcome)
    assert volumes == sorted(volumes)
    assert volumes[1] == volumes[2]  # refused
    assert volumes[4] == volumes[5]  # repeated
    assert 0 < volumes[-1] <= 1


def test_tensorboard_gets_scores_the_front_and_the_causes_of_death(outcome: SearchOutcome) -> None:
    writer = Writer()
    write_review(writer, outcome)
    accuracies = {step: value for tag, value, step in writer.scalars if tag == "search/accuracy"}
    assert accuracies == {
        each.number: each.result.figures["accuracy"] for each in outcome.trials if each.result.outcome is Outcome.SCORED
    }
    assert "| lint.dtype | 1 | int16 is not permitted |" in writer.texts["search/infeasible"]
    assert [key in writer.texts["search/front"] for key in (each.key for each in outcome.front)] == [True] * len(
        outcome.front
    )
    assert list(writer.figures) == ["search/front"]


def test_the_picture_shows_every_score_and_the_front(outcome: SearchOutcome) -> None:
    figure = draw_front(outcome)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    points = {tuple(each) for each in axes.collections[0].get_offsets().tolist()}
    assert points == {(each.figures["macs"], each.figures["accuracy"]) for each in outcome.scored}
    line = {tuple(each) for each in axes.lines[0].get_xydata().tolist()}
    assert line == {(each.figures["macs"], each.figures["accuracy"]) for each in outcome.front}
    assert axes.get_title() == "1 infeasible, 1 of them without any training"
