"""What `bitwright explore` does: networks captured once, then reckoned with figures of the target varied."""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.experiments.console import Console
from bitwright.experiments.lint_command import capture_for_lint, network_of
from bitwright.hw_constraints.explore import Exploration, Workload, explore
from bitwright.hw_constraints.explore_axes import Axis
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_types import Capability
from bitwright.quant.errors import InputError


def explore_models(
    models: Sequence[str], target_name: str, vary: Sequence[str], inputs: Sequence[str], *, quiet: bool
) -> Exploration:
    """Reads what is to be varied, captures the networks, and goes through all settings.

    Args:
        models: entries or recipes; `MODEL=2` counts twice.
        target_name: of the accelerator.
        vary: as `explore_axes.Axis` reads them.
        inputs: example inputs of an entry, as `1x3x224x224`; for all entries the same.
        quiet: whether to show no progress.

    Raises:
        InputError: no such network, target, figure or shape, or the target does not serve cost.
    """
    target = load_target(target_name)
    target.require(Capability.COST)
    axes = [Axis.parse(text, target) for text in vary]
    named = [_name_and_weight(model) for model in models]
    _check_names([name for name, _ in named])
    workloads = [_workload(name, weight, target_name, inputs) for name, weight in named]
    settings = sum(len(axis.settings) for axis in axes)
    done = 0
    with Console(quiet=quiet).track("explore", settings) as advance:

        def tell(text: str) -> None:
            nonlocal done
            advance(done, text)
            done += 1

        return explore(workloads, target, axes, on_point=tell)


def _check_names(names: Sequence[str]) -> None:
    """Each network once, and none as a file: its plan would say what no setting of the target can change."""
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"model {name!r} is named twice; let it count twice with {name}=2")
        if name.endswith(".onnx"):
            raise InputError(
                f"model {name!r}: expected package.module:function or a recipe; `bitwright lower` reads ONNX"
            )


def _workload(name: str, weight: float, target_name: str, inputs: Sequence[str]) -> Workload:
    network, example, _ = network_of(name, [target_name], inputs)
    return Workload(name=name, graphs=capture_for_lint(network, example).graphs, weight=weight)


def _name_and_weight(model: str) -> tuple[str, float]:
    name, equals, text = model.partition("=")
    if not equals:
        return name, 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise InputError(f"model {model!r}: weight = {text!r}; expected a number above 0, such as {name}=2")
    return name, weight
