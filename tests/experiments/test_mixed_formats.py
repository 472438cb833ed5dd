"""What a recipe's `quantize.mixed` becomes: formats, budgets and costs, and every way in which it is refused."""

import re
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bitwright.experiments.mixed_amount import amount
from bitwright.experiments.mixed_formats import limits_of, mixed_costs, mixed_problem
from bitwright.experiments.mixed_stage import as_recipe
from bitwright.experiments.recipe import Mixed, QuantizeOverride, Recipe
from bitwright.experiments.scheme_settings import scheme_of
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.plan import plan
from bitwright.quant.scheme import Override

TARGET = load_target("x86-vnni")


def recipe(**quantize):
    sections = {"model": {"kind": "digits_mobilenet"}, "data": {"kind": "digits"}, "quantize": quantize}
    return Recipe.model_validate({"name": "r", "target": "x86-vnni", **sections})


@pytest.fixture(scope="module")
def graph():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()
    return capture(network, (torch.zeros(1, 3, 6, 6),)).graph


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("latency", "3.2 ms", 3.2), ("latency", "800us", 0.8), ("size", "1.5 MB", 1.5), ("energy", "2 mJ", 2000.0)],
)
def test_an_amount_is_read_in_its_unit(name, text, value):
    assert amount(name, text) == pytest.approx(value)


def test_an_amount_in_another_unit_is_refused():
    with pytest.raises(InputError, match=re.escape("quantize.mixed.budget.latency = '3 MB'; expected a share")):
        amount("latency", "3 MB")


def test_a_share_lies_between_float_and_the_scheme(graph):
    search = SimpleNamespace(costs={"size": None}, at_share=lambda name, share: 10 - 8 * share)
    assert limits_of(Mixed(budget={"size": 0.75}), search) == {"size": 4.0}


def test_no_goal_is_refused():
    with pytest.raises(ValidationError, match=re.escape("needs a budget (latency, size or energy) or min_sqnr_db")):
        Mixed()


def test_formats_are_the_target_s_own(graph):
    scheme = TARGET.scheme()
    problem = mixed_problem(Mixed(budget={"size": 0.5}), graph, scheme, TARGET)
    int8, float32 = problem.formats
    assert (int8.name, int8.is_own) == ("int8", True)
    assert float32.is_float
    assert problem.allowed == ("int8", "float32")


def test_a_format_that_the_target_lacks_is_refused(graph):
    asked = Mixed(budget={"size": 0.5}, formats=("int8", "fp8"))
    with pytest.raises(InputError, match=re.escape("quantize.mixed.formats[1] = 'fp8'; target 'x86-vnni' accepts")):
        mixed_problem(asked, graph, TARGET.scheme(), TARGET)


def test_float_is_refused_where_nothing_runs_in_float(graph):
    target, asked = load_target("ethos-u85-1024"), Mixed(budget={"size": "1 MB"})
    with pytest.raises(InputError, match=re.escape("quantize.mixed.formats[1] = 'float32'; target 'ethos-u85-1024' a")):
        mixed_problem(asked, graph, target.scheme(), target)


@pytest.mark.parametrize(("name", "unit"), [("latency", "ms"), ("energy", "uJ")])
def test_a_share_of_the_way_from_float_is_refused_where_nothing_runs_in_float(name, unit):
    with pytest.raises(InputError) as refusal:
        mixed_costs(Mixed(budget={name: 0.75}), recipe(), load_target("ethos-u85-1024"))
    assert str(refusal.value) == (
        f"quantize.mixed.budget.{name} = 0.75 is a share of the way from float, and 'ethos-u85-1024' has no floating "
        f"point; give an amount, such as 0.5{unit}"
    )


def test_an_unknown_format_lists_the_choices(graph):
    asked = Mixed(budget={"size": 0.5}, formats=("int8", "int9"))
    with pytest.raises(
        InputError, match=re.escape("unknown number format of quantize.mixed.formats 'int9'; there are:")
    ):
        mixed_problem(asked, graph, TARGET.scheme(), TARGET)


def test_latency_needs_a_table_or_a_cost_model():
    asked = Mixed(budget={"latency": 0.5})
    said = "quantize.mixed.budget.latency: target 'x86-vnni' has no cost model; predict.tables = [FILE] brings a table"
    with pytest.raises(InputError, match=re.escape(said)):
        mixed_costs(asked, recipe(mixed=asked.model_dump()), TARGET)


def test_what_was_chosen_can_be_written_as_overrides_of_a_recipe(graph):
    chosen = (Override(module="0", weights=TARGET.scheme().weights), Override(module="2", keep_float=True))
    written = [QuantizeOverride.model_validate(as_recipe(each)).model_dump() for each in chosen]
    again = scheme_of(recipe(overrides=written), TARGET)
    wanted = TARGET.scheme().with_overrides(*chosen)
    assert plan(graph, again).quantized == plan(graph, wanted).quantized
    assert plan(graph, again).weights == plan(graph, wanted).weights
