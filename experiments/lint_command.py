"""What `bitwright lint` does: a network, captured whole or in regions, through the eyes of one or more accelerators."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitwright.experiments.entry_network import entry_network
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.recipe_section import ENTRY
from bitwright.hw_constraints.finding import Finding
from bitwright.hw_constraints.lint import lint
from bitwright.hw_constraints.lint_cost import costs_us
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph

if TYPE_CHECKING:
    import torch

    from bitwright.quant.capture_failure import CaptureFailure
    from bitwright.quant.scheme import QuantScheme


@dataclass(frozen=True, kw_only=True)
class Captured:
    """What of a network the linter can look at.

    Attributes:
        graphs: one for a network that was captured whole, else one for each of its regions.
        failures: what stood in the way of capturing it whole.
        unused_modules: modules with parameters that take no part in any result; empty where it was not captured whole.
    """

    graphs: tuple[Graph, ...]
    failures: tuple[CaptureFailure, ...] = ()
    unused_modules: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The user's files that the network was written in."""
        lines = [node.source for graph in self.graphs for node in graph.nodes]
        lines += [failure.source for failure in self.failures]
        return tuple(sorted({line.file for line in lines if line}))


def network_of(
    model: str, targets: Sequence[str], inputs: Sequence[str]
) -> tuple[torch.nn.Module, tuple[Any, ...], tuple[str, ...]]:
    """The network that a command names, its example arguments, and the targets to lint it for.

    Args:
        model: an entry, or a recipe.
        targets: names of targets; a recipe's own when there are none.
        inputs: example inputs of an entry, as `1x3x224x224` or `1x20:int64`.

    Raises:
        InputError: no such network, target or shape.
    """
    from bitwright.experiments.workbench import Workbench

    if re.match(ENTRY, model):
        network, example = entry_network(model, inputs)
        if not targets:
            raise InputError("--target is missing; see `bitwright targets`")
        return network, example, tuple(targets)
    bench = Workbench(load_recipe(model, ()))
    network = bench.new_model()
    return network, bench.example(network), tuple(targets or [bench.recipe.target])


def capture_for_lint(network: torch.nn.Module, example: tuple[Any, ...]) -> Captured:
    """Captures a network whole, or else its largest regions and the lines that stand in the way."""
    from bitwright.quant.capture import CaptureError, capture
    from bitwright.quant.control_flow import read_modules
    from bitwright.quant.control_flow_reader import Hazard
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
    from bitwright.quant.regions import find_regions

    # Capture does not stumble over them: it writes down the number of now.
    counters = tuple(each.failure() for each in read_modules(network, [Hazard.COUNTER]))
    try:
        captured = capture(network, example)
    except CaptureError:
        regions = find_regions(network, example)
        graphs = tuple(fold_batch_norm(region.captured).graph for region in regions.regions)
        return Captured(graphs=graphs, failures=tuple(dict.fromkeys((*regions.failures, *counters))))
    unused = tuple(unused_modules(network, captured.graph))
    return Captured(graphs=(fold_batch_norm(captured).graph,), failures=counters, unused_modules=unused)


def lint_captured(
    captured: Captured, target: Target, *, scheme: QuantScheme | None = None, rules: Sequence[str] | None = None
) -> tuple[Finding, ...]:
    """The findings of all parts of a network for one target, each planned by a scheme, the target's own if None."""
    from bitwright.quant.plan import plan

    found = [
        *lint(
            None,
            target,
            capture_failures=captured.failures,
            unused_modules=captured.unused_modules,
            rules=rules,
        )
    ]
    for graph in captured.graphs:
        planned = plan(graph, scheme or target.scheme())
        found += lint(graph, target, plan=planned, cost_us=costs_us(graph, target, planned), rules=rules)
    return tuple(sorted(found, key=lambda each: ("error", "warning", "info").index(each.severity)))


def lint_model(
    model: str, targets: Sequence[str], inputs: Sequence[str], *, rules: Sequence[str] | None = None
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Captures a network once, or reads its ONNX file, and lints it for every target.

    Returns:
        The findings, target by target, and the user's files that the network was written in.

    Raises:
        InputError: no such network, target, rule or shape.
    """
    loaded = [load_target(name) for name in dict.fromkeys(targets)]
    if model.endswith(".onnx"):
        return _lint_file(model, loaded, inputs, rules)
    network, example, names = network_of(model, targets, inputs)
    loaded = loaded or [load_target(name) for name in names]
    captured = capture_for_lint(network, example)
    findings = tuple(finding for target in loaded for finding in lint_captured(captured, target, rules=rules))
    return findings, captured.files


def _lint_file(
    path: str, targets: Sequence[Target], inputs: Sequence[str], rules: Sequence[str] | None
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    from bitwright.hw_constraints.lint_onnx import lint_imported
    from bitwright.quant.onnx_import import graph_from_onnx

    if not targets:
        raise InputError("--target is missing; see `bitwright targets`")
    if inputs:
        raise InputError(f"--input = {inputs[0]!r}; an ONNX file has the shapes of its inputs: leave it out")
    imported = graph_from_onnx(path)
    findings = tuple(finding for target in targets for finding in lint_imported(imported, target, rules=rules))
    files = {node.source.file for node in imported.graph.nodes if node.source}
    return findings, tuple(sorted(files))


def unused_modules(network: torch.nn.Module, graph: Graph) -> Iterator[str]:
    """The outermost modules with parameters from which nothing in the captured graph comes.

    Constants that capture has computed keep the path of the module that made the last step, so that what lies in such a
    module is left alone.
    """
    paths = {node.module_path for node in graph.nodes} | {ref.module_path for ref in graph.tensors}
    computed = {ref.module_path for ref in graph.tensors if ref.is_op_result and graph.is_constant(ref)}
    used: set[int] = set()  # by identity: a module may stand in two places
    named = dict(network.named_modules(remove_duplicate=False))
    for path, module in named.items():
        below = any(each == path or each.startswith(f"{path}.") for each in paths)
        folded = any(path.startswith(f"{each}.") or not each for each in computed)
        if below or folded:
            used.add(id(module))
    idle = {path: module for path, module in named.items() if path and id(module) not in used}
    dead = {path for path, module in idle.items() if next(module.parameters(), None) is not None}
    for path in sorted(dead):
        if path.rpartition(".")[0] not in dead:
            yield path
