"""How long do all rules take on a captured network of 500 layers, and does that grow with its size alone?"""

from __future__ import annotations

import time
from statistics import median

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.lint_networks import layered_network
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.lint import lint, rule_names
from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan, plan

ROW = "lint_speed"
LAYERS = 500
GROWTH = (250, 500, 1000)
ROUNDS = 5


def run(bench: Bench) -> list[Record]:
    """Lints one captured network for every target, and larger ones for the slowest."""
    del bench  # it needs no data
    graph = layered_network(LAYERS)
    table = []
    seconds: dict[str, float] = {}
    for name in list_targets():
        target = load_target(name)
        planned = plan(graph, target.scheme())
        found = lint(graph, target, plan=planned)  # the first one imports the rules
        seconds[name] = _seconds(graph, target, planned)
        table.append({"target": name, "seconds": f"{seconds[name]:.3f}", "findings": len(found)})
    slowest = max(seconds, key=lambda name: seconds[name])
    return [
        record(
            f"{ROW}.slowest_target",
            area="hw_constraints",
            value=seconds[slowest],
            unit="s",
            n=ROUNDS,
            reach=Reach("≤", 1.0),
            table=table,
        ),
        _growth(slowest),
    ]


def _seconds(graph: Graph, target: Target, planned: QuantPlan) -> float:
    """The median time of one lint with all rules."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        lint(graph, target, plan=planned)
        times.append(time.perf_counter() - start)
    return median(times)


def _growth(name: str) -> Record:
    """How much longer four times the layers take than one: 4 where the time is proportional."""
    target = load_target(name)
    table, times = [], []
    for layers in GROWTH:
        graph = layered_network(layers)
        planned = plan(graph, target.scheme())
        times.append(_seconds(graph, target, planned))
        table.append({"layers": layers, "operators": len(graph.nodes), "seconds": f"{times[-1]:.3f}"})
    return record(
        f"{ROW}.growth",
        area="hw_constraints",
        value=times[-1] / times[0],
        unit=f"× for {GROWTH[-1] // GROWTH[0]}× the layers ({len(rule_names())} rules, {name})",
        n=ROUNDS,
        table=table,
    )
