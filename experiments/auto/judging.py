"""Tries against the recipe's gate: which hold, how far the others are from it, and what to blame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from bitwright.experiments.auto.result import Try
from bitwright.experiments.mixed_result import MixedResult
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.stages.verdict import accuracy_gates, as_recorded
from bitwright.experiments.tensor_result import TensorQuality
from bitwright.hw_constraints.figures import Gate
from bitwright.quant.sqnr import EXACT_DB


def judged(done: Try, recipe: Recipe) -> Try:
    """A scored try with the gates of a recipe, which may be others than when it ran."""
    assert done.evaluated is not None
    gates = tuple(accuracy_gates(recipe, done.evaluated))
    passed = all(gate.passed for gate in gates)
    return done.model_copy(
        update={
            "status": "passed" if passed else "failed",
            "gates": tuple(map(as_recorded, gates)),
            "missing": tuple(map(shortfall, gates)),
        }
    )


def ended(blank: Try, status: Literal["refused", "stopped"], reason: str) -> Try:
    """A try that was not scored."""
    return blank.model_copy(update={"status": status, "reason": reason})


def shortfall(gate: Gate) -> float:
    """By how much a gate fails, in its own unit; 0 when it holds, infinite when nothing was measured."""
    if gate.value is None:
        return float("inf")
    low = gate.at_least - gate.value if gate.at_least is not None else 0.0
    high = gate.value - gate.at_most if gate.at_most is not None else 0.0
    return max(0.0, low, high)


def nearness(scored: Try) -> tuple[int, tuple[float, ...], float]:
    """Orders scored tries, the nearest to the gate first: failed gates, what they miss in the recipe's order, noise."""
    assert scored.evaluated is not None
    return sum(each > 0 for each in scored.missing), scored.missing, -scored.evaluated.sqnr.value


def worst_tensor(tensors: Sequence[TensorQuality], kind: Literal["activation", "weight"]) -> str:
    """The activation that its own layer disturbs most, or the weight that rounding disturbs most, in words."""
    worst = min((each for each in tensors if each.kind == kind), key=lambda each: each.own_sqnr.value, default=None)
    if worst is None or worst.own_sqnr.value >= EXACT_DB:
        return ""
    clipped = f", {worst.clipped.value:.2g} % of it clipped" if worst.clipped.value else ""
    return f"lowest {kind}: {worst.module_path or worst.tensor} with {worst.own_sqnr.value:.1f} dB{clipped}"


def mix_in_words(found: MixedResult | None) -> str:
    """How many groups of layers got which format."""
    if found is None:
        return ""
    counts = Counter(group.format for group in found.groups)
    return ", ".join(f"{count} of {len(found.groups)} groups of layers in {name}" for name, count in counts.items())
