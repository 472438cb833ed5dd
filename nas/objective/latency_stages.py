"""Latency: predicted from measured kernels, modelled for targets that nothing here runs, and measured."""

from __future__ import annotations

import math

from bitwright.hw_constraints.cost.estimate import LatencyEstimate, estimate
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target_types import Capability
from bitwright.nas.figures import LOWERED
from bitwright.nas.latency import ComparableLatency, measure_against
from bitwright.nas.objective.attempt import Attempt, Side, Violations
from bitwright.nas.result import Violation
from bitwright.quant.errors import InputError


def predict_latency(attempt: Attempt) -> Violations:
    """Refuses, untrained, what is too slow for the first target alone even at the fast end of its interval.

    Raises:
        InputError: the network cannot be predicted, and the search needs the figure.
    """
    predict = attempt.setup.predict
    if predict is None:
        return ()
    try:
        found = predict(attempt.graph, attempt.sides[0].plan)
    except InputError:
        if attempt.setup.prediction_needed:
            raise
        return ()
    attempt.figures["predicted_ms"] = found.latency_ms
    if math.isfinite(found.high_ms):  # a table with few whole networks promises no interval
        attempt.figures["predicted_ms_low"], attempt.figures["predicted_ms_high"] = found.low_ms, found.high_ms
    violations, limit = attempt.beyond_limits(("predicted_ms",)), attempt.setup.limits.get("latency_ms", math.inf)
    share = attempt.setup.first_share
    predicted, least = found.latency_ms * share, found.low_ms * share
    if least <= limit:
        return violations
    too_slow = f"latency_ms is predicted as {predicted:.4g}, at least {least:.4g}; the search's limit is {limit:.6g}"
    return (*violations, Violation(constraint="latency_ms", amount=least / limit - 1, reason=too_slow))


def model_latency(attempt: Attempt) -> Violations:
    """Lowers the network for each target with a cost model, with the weights that it has before it is trained.

    What cannot be lowered is refused: it would not run there. Operators without a figure add nothing, so that the sum
    is a lower bound; energy is noted where the target's file gives it for every operator.
    """
    if not attempt.setup.wanted.intersection(LOWERED):
        return ()
    reckoned: dict[str, LatencyEstimate] = {}
    refused = []
    for side in attempt.sides:
        if Capability.COST not in side.target.capabilities:
            continue
        try:
            reckoned[side.suffix] = _estimate(attempt, side)
        except InputError as error:
            refused.append(Violation(constraint=f"lowering{side.suffix}", amount=1.0, reason=str(error)))
    attempt.note("modelled_ms", {suffix: each.us / 1e3 for suffix, each in reckoned.items()})
    energies = {suffix: each.energy_uj for suffix, each in reckoned.items()}
    attempt.note("modelled_uj", {suffix: each for suffix, each in energies.items() if each is not None})
    return (*refused, *attempt.beyond_limits(LOWERED))


def _estimate(attempt: Attempt, side: Side) -> LatencyEstimate:
    return estimate(lower(attempt.valued_graph, side.target, plan=side.plan))


def measure_latency(attempt: Attempt) -> Violations:
    """Times the exported files of all targets that something here runs, each beside its runtime's reference.

    The ends of the interval that counts are the combined ends of all targets' intervals.
    """
    found: dict[str, ComparableLatency] = {}
    for runtime, reference in attempt.setup.references.items():
        files = {side.suffix: side.artifact for side in attempt.sides if side.workload.runtime == runtime}
        found.update(measure_against(reference, files))
    attempt.note("latency_ms", {suffix: each.latency_ms for suffix, each in found.items()})
    attempt.note("latency_ms", {suffix: each.low_ms for suffix, each in found.items()}, end="_low")
    attempt.note("latency_ms", {suffix: each.high_ms for suffix, each in found.items()}, end="_high")
    return attempt.beyond_limits(("latency_ms",))
