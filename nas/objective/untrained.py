"""What is known of a network before it is trained: scores without any training, and with inherited weights."""

from __future__ import annotations

import itertools

from bitwright.nas.figures import ZERO_COST
from bitwright.nas.objective.attempt import Attempt, Violations
from bitwright.nas.standing import INHERITED
from bitwright.nas.zero_cost import naswot, synflow

# NASWOT compares the network's answers to so many samples; its authors take 128 (Mellor et al. 2021, section 4).
_SAMPLES = 128


def score_at_zero_cost(attempt: Attempt) -> Violations:
    """NASWOT and synflow, where they are asked for, with fresh weights."""
    wanted = attempt.setup.wanted.intersection(ZERO_COST)
    if not wanted:
        return ()
    model = attempt.workload.build(attempt.architecture)
    if "naswot" in wanted:
        samples = itertools.islice(attempt.workload.calibration(model), _SAMPLES)
        attempt.figures["naswot"] = naswot(model, samples)
    if "synflow" in wanted:
        attempt.figures["synflow"] = synflow(model, attempt.workload.example(model))
    return attempt.beyond_limits(ZERO_COST)


def score_inherited(attempt: Attempt) -> Violations:
    """The accuracy with the weights of the supernet, in float; nothing without one."""
    if attempt.setup.inherited is None:
        return ()
    attempt.figures[INHERITED] = attempt.setup.inherited(attempt.candidate)
    return attempt.beyond_limits((INHERITED,))
