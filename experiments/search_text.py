"""A search in words: what candidates are, what objectives hang on, what limits cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bitwright.experiments.figure_text import format_change, format_value
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.record import Figure
from bitwright.experiments.search_result import Limit, SearchResult
from bitwright.nas.figures import FIGURES, SCRATCH
from bitwright.nas.result import Result
from bitwright.nas.review_importance import Importance

_LABELS = {
    "latency_ms": "latency",
    "predicted_ms": "predicted latency",
    "macs": "MACs",
    "weight_bytes": "weights",
    "activation_bytes": "activations",
    "modelled_ms": "modelled latency",
    "modelled_uj": "modelled energy",
}
_NAMED = 4  # choices of an objective in a line
_VISIBLE = 0.005  # of the variance: what rounds to 0 %


def label(search: SearchResult, name: str) -> str:
    """What a figure is called on an axis and in a table's head."""
    figure, _, target = name.partition("@")
    called = {
        "accuracy": search.metric,
        "inherited_accuracy": f"inherited {search.metric}",
        "scratch_accuracy": f"{search.metric} from scratch",
    }
    text = called.get(figure) or _LABELS.get(figure, figure)
    return f"{text} on {target}" if target else text


def unit(search: SearchResult, name: str) -> str:
    """The unit of a figure."""
    figure = name.partition("@")[0]
    return search.unit if FIGURES[figure].better == "metric" else FIGURES[figure].unit


def figure_names(search: SearchResult, results: Sequence[Result]) -> list[str]:
    """Figures that some of these have: the objectives, then the others.

    Those of single targets (`NAME@TARGET`) where they differ from the one that counts.
    """
    names = dict.fromkeys((*search.objectives, *FIGURES))
    there = dict.fromkeys(name for each in results for name in each.figures)
    own = [name for name in there if "@" in name and name.partition("@")[0] in FIGURES]
    differ = [
        name
        for name in own
        if any(each.figures.get(name) != each.figures.get(name.partition("@")[0]) for each in results)
    ]
    return [name for name in (*names, *differ) if name in there]


def figures_of(search: SearchResult, result: Result) -> dict[str, Figure]:
    """A candidate's figures with unit and origin; bounds become the interval of their figure."""
    return {name: _figure(search, result, name) for name in figure_names(search, [result])}


def _figure(search: SearchResult, result: Result, name: str) -> Figure:
    figure, at, target = name.partition("@")
    origin: Literal["measured", "modelled"] = "measured" if FIGURES[figure].origin == "measured" else "modelled"
    sources = {
        "accuracy": search.metric,
        "inherited_accuracy": f"{search.metric} with the supernet's weights, in float",
        "scratch_accuracy": f"{search.metric}, trained as search.finalists says",
        "latency_ms": f"{search.device}, relative to the study's reference",
        "predicted_ms": "from a table of measured kernels, 90 % interval",
        "modelled_ms": "the target's own cost model",
        "modelled_uj": "the target's own cost model",
        "naswot": "Mellor et al. 2021, fresh weights",
        "synflow": "Tanaka et al. 2020, fresh weights",
    }
    return Figure(
        value=result.figures[name],
        unit=unit(search, name),
        origin=origin,
        low=result.figures.get(f"{figure}_low{at}{target}"),
        high=result.figures.get(f"{figure}_high{at}{target}"),
        source=sources.get(figure, "counted in the captured graph, from its shapes"),
    )


def choices_text(result: Result) -> str:
    """A candidate's choices in one line."""
    return ", ".join(f"{name} {value}" for name, value in result.values.items())


def describe(search: SearchResult, result: Result) -> str:
    """A candidate in one line: choices, then figures or the reason it has none."""
    figures = figures_of(search, result)
    # Work says what it is by its unit.
    found = ", ".join(
        f"{'' if name == 'macs' else label(search, name)} {format_value(each.value, each.unit)}".lstrip()
        for name, each in figures.items()
    )
    reasons = "; ".join(each.reason for each in result.violations) or result.reason
    return "; ".join(part for part in (choices_text(result), found, reasons) if part)


def importance_text(search: SearchResult, found: Importance) -> str:
    """`top1 hangs on width 62 % [50, 71], kernel 20 % [12, 29]; …`, with what speaks against relying on it."""
    name = label(search, found.objective)
    if not found.choices:
        return f"{name}: {found.caution}"
    clear = [each for each in found.choices if each.low > _VISIBLE] or found.choices[:1]
    named = ", ".join(
        f"{each.choice} {_percent(each.share)} % [{_percent(each.low)}, {_percent(each.high)}]"
        for each in clear[:_NAMED]
    )
    more = f" and {len(clear) - _NAMED} more" if len(clear) > _NAMED else ""
    rest = len(found.choices) - len(clear)
    quiet = f", nothing to be seen of {rest} more" if rest else ""
    caution = found.caution or f"{found.explained:.0%} explained on unseen candidates"
    return f"{name} hangs on {named}{more}{quiet}; {caution}"


def _percent(share: float) -> str:
    """A share is between 0 and 1; its estimate may lie a little outside."""
    return f"{100 * min(1.0, max(0.0, share)):.0f}"


def limit_text(search: SearchResult, limit: Limit, folder: Path) -> str:
    """What a constraint costs, and where that is not known, the command that would tell."""
    cost = limit.cost
    refused = f"{cost.constraint} alone refused {cost.alone}"
    name = label(search, cost.figure)
    if cost.gain is None:
        if limit.problem:
            return f"{refused}: cost not known, none has {name} and no recipe trains one ({limit.problem})"
        return (
            f"{refused}: cost not known, none has {name}; to find out: "
            f"bitwright run {folder / limit.recipe} --until evaluate"
        )
    if cost.gain == 0:
        return f"{refused}: costs no {name}, none of the {cost.known} that have it is better"
    gain = format_change(cost.gain if search.maximize[0] else -cost.gain, unit(search, cost.figure))
    least = " at least" if cost.known < cost.alone else ""
    return f"{refused}: without it {name} {gain}{least} ({cost.known} of {cost.alone} have it; best is {cost.key})"


def recipes_text(recipe: Recipe) -> str:
    """What the recipes of a search's front do."""
    asked = recipe.search
    assert asked is not None
    own = recipe.model.weights is not None or recipe.model.entry is not None
    start = "on from the model's own weights" if own else "from scratch"
    if asked.finalists is not None or (asked.supernet is None and asked.train is not None):
        return f"train the front {start}, quantize and export it"
    if asked.supernet is not None and asked.train is not None:
        return "train the front on from the weights that it inherited, quantize and export it"
    weights = "it inherited" if asked.supernet is not None else "its model gives it"
    return f"quantize and export the front in the weights that {weights}"


def ranks_text(search: SearchResult) -> str:
    """What the front's scores from scratch say of those that the search went by; "" where there are none."""
    count = sum(SCRATCH in each.figures for each in search.outcome.front)
    if not count:
        return ""
    if search.ranks is None:
        return f"scores from scratch: {count}; too few, or too equal, to tell how far the searched ones order alike"
    found = search.ranks
    return (
        f"searched scores order the front as those from scratch do: Kendall tau {found.tau:.2f} "
        f"[{found.low:.2f}, {found.high:.2f}] over {found.n}"
    )
