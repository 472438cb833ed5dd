"""An exploration as tables: what each step on an axis buys, and which layers hold the networks back."""

from __future__ import annotations

from bitwright.experiments.lower_text import module_and_name
from bitwright.experiments.tables import print_table
from bitwright.hw_constraints.explore import Exploration, Point, Sweep


def print_exploration(exploration: Exploration) -> None:
    """A table an axis, one of layers, and what the figures lean on."""
    counted = [f"{name} x {weight:g}" for name, weight in exploration.workloads.items()]
    print(f"{', '.join(counted)} on {exploration.target.id}; every figure is modelled\n")
    for sweep in exploration.sweeps:
        rows = [_row(sweep, point) for point in sweep.points]
        print_table((sweep.axis.name, "ms", "against as it is", ""), rows)
        print(f"{sensitivity(sweep)}\n")
    print_table(
        ("layer", "of the time", "waits for", "would gain most from", "your line"),
        [
            (
                f"{each.network}: {module_and_name(each.module, each.layer)}",
                f"{100 * each.share:.1f} %",
                each.bound_by,
                f"{each.remedy} (-{100 * each.gain:.0f} %)" if each.remedy else "nothing that was varied",
                each.source,
            )
            for each in exploration.held_back
        ],
    )
    if exploration.not_modelled:
        print(f"\nnot in these figures: {', '.join(exploration.not_modelled)}")
    for text in exploration.assumptions:
        print(f"assumed: {text}")
    for text in exploration.unverified:
        print(f"leans on: {text}")


def _row(sweep: Sweep, point: Point) -> tuple[str, str, str, str]:
    if point.refused:
        return point.setting.text, "-", "-", point.refused
    change = sweep.change(point) or 0.0
    return (
        point.setting.text,
        f"{point.total_us / 1e3:#.4g}",
        f"{100 * change:+.1f} %",
        "as it is" if point.setting.is_own else "",
    )


def sensitivity(sweep: Sweep) -> str:
    """What the next step up and the next step down from the target as it is do: `32 MiB to 64 MiB: -7.0 %`."""
    own = sweep.points.index(sweep.own)
    steps = [sweep.points[place] for place in (own + 1, own - 1) if 0 <= place < len(sweep.points)]
    texts = []
    for point in steps:
        change = sweep.change(point)
        said = "cannot be lowered" if change is None else f"{100 * change:+.1f} %"
        texts.append(f"{sweep.own.setting.text} to {point.setting.text}: {said}")
    return "; ".join(texts) or "nothing to compare with"
