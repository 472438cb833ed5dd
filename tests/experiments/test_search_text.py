import pytest

from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.search_result import Ranks, SearchResult
from bitwright.experiments.search_text import figures_of, label, ranks_text, recipes_text
from bitwright.nas.result import Outcome, Result
from bitwright.nas.search_outcome import SearchOutcome, Told

SUPERNET, FINALISTS, UNTRAINED = "search.supernet.epochs=1", "search.finalists.epochs=9", "search.train=null"
FROM_SCRATCH = "train the front from scratch, quantize and export it"


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ([], FROM_SCRATCH),
        ([FINALISTS], FROM_SCRATCH),
        ([SUPERNET, UNTRAINED, FINALISTS], FROM_SCRATCH),
        ([SUPERNET], "train the front on from the weights that it inherited, quantize and export it"),
        ([SUPERNET, UNTRAINED], "quantize and export the front in the weights that it inherited"),
        ([UNTRAINED], "quantize and export the front in the weights that its model gives it"),
        (["model.weights=mine.pt"], "train the front on from the model's own weights, quantize and export it"),
    ],
)
def test_what_recipes_of_the_front_do(overrides: list[str], text: str) -> None:
    assert recipes_text(load_recipe("digits_search", overrides)) == text


def test_scores_from_scratch_and_intervals_on_each_target_are_shown() -> None:
    ends = {
        "scratch_accuracy_low": 84.0,
        "scratch_accuracy_high": 89.0,
        "latency_ms_low@a": 0.4,
        "latency_ms_high@a": 1,
    }
    figures = {"accuracy": 90.0, "scratch_accuracy": 87.0, "latency_ms": 0.5, "latency_ms@a": 0.5, **ends}
    result = Result(key="a", values={"width": 1}, outcome=Outcome.SCORED, stage="measure", figures=figures)
    outcome = SearchOutcome(
        trials=(Told(number=0, result=result, repeated=False),), objectives=("accuracy",), maximize=(True,)
    )
    search = SearchResult.of(outcome, metric="miou", unit="%")
    assert label(search, "scratch_accuracy") == "miou from scratch"
    found = figures_of(search, result)
    scratch = found["scratch_accuracy"]
    assert (scratch.value, scratch.unit, scratch.low, scratch.high) == (87.0, "%", 84.0, 89.0)
    assert scratch.origin == "measured"
    other = result.model_copy(update={"figures": {**figures, "latency_ms": 0.7}})
    there = figures_of(search, other)["latency_ms@a"]
    assert (there.low, there.high) == (0.4, 1.0)
    assert ranks_text(search) == (
        "scores from scratch: 1; too few, or too equal, to tell how far the searched ones order alike"
    )
    told = search.model_copy(update={"ranks": Ranks(tau=0.8333, low=0.4, high=1.0, n=9)})
    assert ranks_text(told) == (
        "searched scores order the front as those from scratch do: Kendall tau 0.83 [0.40, 1.00] over 9"
    )
    assert ranks_text(SearchResult.of(outcome_without_scratch(result), metric="miou", unit="%")) == ""


def outcome_without_scratch(result: Result) -> SearchOutcome:
    bare = result.model_copy(update={"figures": {"accuracy": 90.0}})
    told = Told(number=0, result=bare, repeated=False)
    return SearchOutcome(trials=(told,), objectives=("accuracy",), maximize=(True,))
