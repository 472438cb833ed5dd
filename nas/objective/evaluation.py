"""The stages of the objective in their order, from cheap to dear.

Functions here take picklable arguments and write files only, so that they can run in any process.
"""

from __future__ import annotations

from bitwright.nas.objective.attempt import Attempt, Stage
from bitwright.nas.objective.feasibility import count_costs, lint_candidate
from bitwright.nas.objective.latency_stages import measure_latency, model_latency, predict_latency
from bitwright.nas.objective.trained import score_quantized, train_candidate
from bitwright.nas.objective.untrained import score_at_zero_cost, score_inherited
from bitwright.nas.result import Outcome, Result
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate

CHEAP: tuple[tuple[str, Stage], ...] = (
    ("lint", lint_candidate),
    ("costs", count_costs),
    ("predict", predict_latency),
    ("model", model_latency),
)
DEAR: tuple[tuple[str, Stage], ...] = (
    ("zero cost", score_at_zero_cost),
    ("inherit", score_inherited),
    ("train", train_candidate),
    ("quantize", score_quantized),
)
MEASURE: tuple[str, Stage] = ("measure", measure_latency)


def evaluate(candidate: Candidate, setup: Setup) -> Result:
    """Scores a candidate.

    What a single candidate can cause (a network that does not train, a file that its runtime refuses, no memory left)
    ends in its result; anything else is raised.
    """
    return time_scored(score(candidate, setup), setup)


def score(candidate: Candidate, setup: Setup) -> Result:
    """All but the latency, which is measured on the device (`time_scored`)."""
    return Attempt(candidate, setup).through((*CHEAP, *DEAR))


def screen(candidate: Candidate, setup: Setup) -> Result:
    """What is known of a candidate from its shapes and formats alone: infeasible, or SCORED with the cheap figures."""
    return Attempt(candidate, setup.against(None)).through(CHEAP)


def time_scored(result: Result, setup: Setup) -> Result:
    """Adds the latency to a result of `score`; one that has no scores, or has them from a twin, stays as it is."""
    if result.outcome is not Outcome.SCORED or result.same_as is not None or not setup.references:
        return result
    attempt = Attempt(Candidate(result.values), setup)
    attempt.figures, attempt.seconds, attempt.network = dict(result.figures), dict(result.seconds), result.network
    return attempt.through((MEASURE,))
