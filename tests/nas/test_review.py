import itertools
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bitwright.nas.figures import short
from bitwright.nas.result import Outcome, Result, Violation
from bitwright.nas.review import hypervolume_by_trial, write_review
from bitwright.nas.review_importance import Importance, importance_of_choices
from bitwright.nas.review_limits import limit_costs
from bitwright.nas.review_pictures import draw_front, draw_importance, draw_parallel, parallel_columns
from bitwright.nas.review_stages import StageToll, stage_tolls
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
        self.figures: dict[str, dict[int, Any]] = {}
        self.texts: dict[str, str] = {}
        self.rows: dict[str, tuple[dict[str, Any], dict[str, float]]] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.scalars.append((tag, scalar_value, global_step))

    def add_figure(self, tag: str, figure: Any, global_step: int = 0) -> None:
        self.figures.setdefault(tag, {})[global_step] = figure

    def add_hparams(
        self,
        hparam_dict: dict[str, Any],
        metric_dict: dict[str, float],
        hparam_domain_discrete: dict[str, list[Any]],
        run_name: str,
    ) -> None:
        assert all(value in hparam_domain_discrete[name] for name, value in hparam_dict.items())
        self.rows[run_name] = (hparam_dict, metric_dict)

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
    assert list(writer.figures) == ["search/front", "search/parallel"]
    assert "| train | 4 |  | 0.0 |" in writer.texts["search/stages"]
    front = {each.key for each in outcome.front}
    assert {key: row for key, (row, _) in writer.rows.items()} == {each.key: each.values for each in outcome.scored}
    assert {key for key, (_, figures) in writer.rows.items() if figures["hparam/on_front"]} == front


def test_the_picture_shows_every_score_and_the_front(outcome: SearchOutcome) -> None:
    figure = draw_front(outcome)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    points = {tuple(each) for each in axes.collections[0].get_offsets().tolist()}
    assert points == {(each.figures["macs"], each.figures["accuracy"]) for each in outcome.scored}
    line = {tuple(each) for each in axes.lines[0].get_xydata().tolist()}
    assert line == {(each.figures["macs"], each.figures["accuracy"]) for each in outcome.front}
    assert axes.get_title() == "1 infeasible, 1 of them without any training"


def test_the_front_grows_on_the_same_axes(outcome: SearchOutcome) -> None:
    writer = Writer()
    write_review(writer, outcome)
    pictures = writer.figures["search/front"]
    assert list(pictures) == [0, 1, 2, 3, 4, 5]  # fewer trials than pictures: one after each
    assert len({figure.axes[0].get_xlim() for figure in pictures.values()}) == 1
    assert [len(figure.axes[0].collections[0].get_offsets()) for figure in pictures.values()] == [1, 2, 2, 3, 4, 4]


def test_parallel_coordinates_cross_every_axis_where_the_candidate_is(outcome: SearchOutcome) -> None:
    figure = draw_parallel(outcome)
    FigureCanvasAgg(figure).draw()
    heights = sorted(tuple(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_xdata()) == 5)
    columns = parallel_columns(outcome, ["width", "depth", "format"])
    assert [each.name for each in columns] == ["width", "depth", "format", "accuracy", "macs"]
    assert heights == sorted(zip(*(each.heights for each in columns), strict=True))
    by_width = {each.values["width"]: height for each, height in zip(outcome.scored, columns[0].heights, strict=True)}
    assert by_width == {1: 0.0, 2: 0.5, 3: 1.0}


def _every(values: Callable[[dict[str, Any]], float], **choices: Sequence[Any]) -> SearchOutcome:
    """A search that has seen every combination, each with the value of a formula."""
    trials = []
    for number, chosen in enumerate(itertools.product(*choices.values())):
        candidate = dict(zip(choices, chosen, strict=True))
        figures = {"accuracy": values(candidate)}
        result = Result(
            key=f"{number:04x}", values=candidate, outcome=Outcome.SCORED, stage="quantize", figures=figures
        )
        trials.append(Told(number=number, result=result, repeated=False))
    return SearchOutcome(trials=tuple(trials), objectives=("accuracy",), maximize=(True,))


def _total_effects(outcome: SearchOutcome) -> dict[str, float]:
    """Total-effect Sobol indices by their definition: the mean variance that is left when all others are fixed."""
    values = [each.figures["accuracy"] for each in outcome.scored]
    found = {}
    for name in outcome.scored[0].values:
        groups: dict[Any, list[float]] = {}
        for each in outcome.scored:
            others = tuple(value for key, value in each.values.items() if key != name)
            groups.setdefault(others, []).append(each.figures["accuracy"])
        found[name] = statistics.fmean(map(statistics.pvariance, groups.values())) / statistics.pvariance(values)
    return found


def test_importance_is_the_share_of_variance_that_a_choice_takes_part_in() -> None:
    outcome = _every(
        lambda c: c["width"] + 2 * c["depth"] * (c["format"] == "int8"),
        width=[0, 1, 2, 3], depth=[0, 1, 2, 3], format=["int8", "float32"], idle=[0, 1, 2, 3],
    )  # fmt: skip
    found, truth = importance_of_choices(outcome, "accuracy"), _total_effects(outcome)
    assert found.explained > 0.9
    assert found.caution == ""
    for each in found.choices:
        assert each.share == pytest.approx(truth[each.choice], abs=0.08)
        assert each.low <= each.share <= each.high
    assert found.choices[-1].choice == "idle"
    assert found == importance_of_choices(outcome, "accuracy")


def test_importance_of_noise_is_called_unreliable_and_few_candidates_are_not_ranked(outcome: SearchOutcome) -> None:
    noise = random.Random(0)
    found = importance_of_choices(_every(lambda _: noise.random(), a=[0, 1, 2, 3], b=[0, 1, 2, 3]), "accuracy")
    assert "16 candidates are too few for 2 choices" in found.caution
    few = importance_of_choices(outcome, "accuracy")
    assert few.choices == ()
    assert few.caution == "scored candidates: 4; 10 are the least that can tell anything"
    alike = importance_of_choices(_every(lambda _: 1.0, a=range(12)), "accuracy")
    assert alike.caution == "all scored candidates are alike in accuracy"


def test_the_picture_of_importance_has_a_bar_for_each_choice_and_objective() -> None:
    found = importance_of_choices(_every(lambda c: c["a"], a=range(6), b=range(6)), "accuracy")
    figure = draw_importance(
        [found, Importance(objective="macs", candidates=4, explained=0, choices=(), caution="few")]
    )
    FigureCanvasAgg(figure).draw()
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [max(0.0, each.share) for each in found.choices]


def _refused(key: str, *constraints: str, amount: float = 1.0, **figures: float) -> Result:
    violations = tuple(Violation(constraint=name, amount=amount, reason=f"{name} too large") for name in constraints)
    return Result(
        key=key, values={"a": key}, outcome=Outcome.INFEASIBLE, stage="costs", violations=violations, figures=figures
    )


def test_a_limit_costs_what_the_best_candidate_that_it_alone_refused_is_better(outcome: SearchOutcome) -> None:
    best = max(each.figures["accuracy"] for each in outcome.scored)
    refused = [
        _refused("a", "latency_ms", accuracy=best + 0.1),
        _refused("b", "latency_ms", accuracy=best + 0.05),
        _refused("c", "latency_ms"),  # not scored: counts, and is not compared
        _refused("d", "latency_ms", "weight_bytes", accuracy=best + 0.5),  # two refuse it: neither alone costs it
        _refused("e", "weight_bytes", accuracy=best - 0.2),
        _refused("f", "macs", amount=0.5),
        _refused("g", "macs", amount=0.1),
    ]
    more = tuple(Told(number=10 + i, result=each, repeated=False) for i, each in enumerate(refused))
    found = {each.constraint: each for each in limit_costs(replace(outcome, trials=outcome.trials + more))}
    assert found["latency_ms"].gain == pytest.approx(0.1)
    assert (found["latency_ms"].alone, found["latency_ms"].known, found["latency_ms"].key) == (3, 2, "a")
    assert (found["weight_bytes"].gain, found["weight_bytes"].key) == (0.0, "e")
    assert (found["macs"].gain, found["macs"].known, found["macs"].key) == (None, 0, "g")  # nothing is made up
    assert found["lint.dtype"].gain is None


def test_stages_count_whom_they_ended(outcome: SearchOutcome) -> None:
    seconds = [{"lint": 1.0}, {"lint": 1.0, "train": 5.0}, {"lint": 1.0, "train": 6.0}]
    ends = [(Outcome.INFEASIBLE, "lint"), (Outcome.SCORED, "train"), (Outcome.FAILED, "train")]
    results = [
        Result(key=str(i), values={}, outcome=what, stage=stage, seconds=took)
        for i, ((what, stage), took) in enumerate(zip(ends, seconds, strict=True))
    ]
    assert stage_tolls(results) == (
        StageToll(stage="lint", reached=3, ended={"infeasible": 1}, seconds=3.0),
        StageToll(stage="train", reached=2, ended={"failed": 1}, seconds=11.0),
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "0.25"), (-0.5, "-0.5"), (0.0, "0"), (9000.0, "9000"), (4e5, "400 k"), (1e6, "1 M"), (-2.5e9, "-2.5 G")],
)
def test_numbers_on_axes_have_no_exponents(value: float, text: str) -> None:
    assert short(value) == text
    assert short(1076290.0, 4) == "1.076 M"
