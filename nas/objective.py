"""Scores a candidate in stages from cheap to dear; the first one that refuses it ends it, with its reason.

`evaluate` is a function of picklable arguments and writes files only, so that it can run in any process.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import torch
from safetensors.torch import load_file, save

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint import lint
from bitwright.nas import costs
from bitwright.nas.block_formats import apply_block_formats
from bitwright.nas.fingerprint import network_hash
from bitwright.nas.latency import measure_against
from bitwright.nas.result import Outcome, Result, ResultFiles, Violation, replace_file
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate, hash_of
from bitwright.quant.capture import CaptureError, capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme


def evaluate(candidate: Candidate, setup: Setup) -> Result:
    """Scores a candidate.

    What a single candidate can cause (a network that does not train, a file that its runtime refuses, no memory left)
    ends in its result; anything else is raised.
    """
    return time_scored(score(candidate, setup), setup)


def score(candidate: Candidate, setup: Setup) -> Result:
    """All but the latency, which is measured on the device (`time_scored`)."""
    attempt = _Attempt(candidate, setup)
    return attempt.through(STAGES)


def time_scored(result: Result, setup: Setup) -> Result:
    """Adds the latency to a result of `score`; one that has no scores, or has them from a twin, stays as it is."""
    if result.outcome is not Outcome.SCORED or result.same_as is not None or setup.reference is None:
        return result
    attempt = _Attempt(Candidate(result.values), setup)
    attempt.figures, attempt.seconds, attempt.network = dict(result.figures), dict(result.seconds), result.network
    return attempt.through((MEASURE,))


Violations = tuple[Violation, ...]


class _Attempt:
    """A candidate on its way through the stages."""

    def __init__(self, candidate: Candidate, setup: Setup) -> None:
        self.candidate, self.setup = candidate, setup
        self.workload = setup.workload
        self.architecture = setup.space.architecture(candidate)
        self.artifact = setup.folder / "artifacts" / f"{candidate.key}.onnx"
        self.stage = ""
        self.figures: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.network: str | None = None
        self.twin: Result | None = None

    def through(self, stages: Iterable[tuple[str, Stage]]) -> Result:
        """The result after these stages, or after the first that ends it."""
        for name, stage in stages:
            violations, reason = self.run(name, stage)
            if violations:
                return self.result(Outcome.INFEASIBLE, violations=violations)
            if reason:
                return self.result(Outcome.FAILED, reason=f"{name}: {reason}")
            if self.twin is not None:
                break
        return self.result(Outcome.SCORED)

    def run(self, name: str, stage: Stage) -> tuple[Violations, str]:
        """What a stage finds to refuse, or why it could not be carried out; both empty when all is well."""
        self.stage = name
        began = time.monotonic()
        try:
            violations = stage(self)
        except (InputError, MemoryError, RuntimeError) as error:  # RuntimeError: torch's own, also without memory
            return (), " ".join(f"{type(error).__name__}: {error}".split())
        finally:
            self.seconds[name] = round(time.monotonic() - began, 3)
        bad = next((key for key, value in self.figures.items() if not math.isfinite(value)), None)
        return violations, "" if bad is None else f"{bad} is {self.figures.pop(bad)}"

    def result(self, outcome: Outcome, *, violations: Violations = (), reason: str = "") -> Result:
        twin = self.twin
        return Result(
            key=self.candidate.key,
            values=dict(self.candidate.values),
            outcome=outcome,
            stage=self.stage,
            violations=violations,
            reason=reason,
            figures={**self.figures, **(twin.figures if twin else {})},
            seconds=self.seconds,
            network=self.network,
            same_as=twin.key if twin else None,
        )

    @cached_property
    def model(self) -> torch.nn.Module:
        """The network, with fresh weights until it is trained."""
        return self.workload.build(self.architecture)

    @cached_property
    def scheme(self) -> QuantScheme:
        """The workload's scheme with the candidate's formats."""
        formats = self.setup.space.formats(self.candidate, self.model)
        return apply_block_formats(self.workload.scheme, self.workload.target, formats)

    @cached_property
    def graph(self) -> Graph:
        """The network, batch norms folded."""
        return self.setup.graph(self.architecture, self.model)

    @cached_property
    def plan(self) -> QuantPlan:
        """Which tensor gets which format."""
        return plan(self.graph, self.scheme)

    def beyond_limits(self, names: Iterable[str]) -> Violations:
        """Which of these figures exceed what the recipe allows; the amount is relative to the limit."""
        return tuple(
            Violation(
                constraint=name,
                amount=self.figures[name] / self.setup.limits[name] - 1,
                reason=f"{name} = {self.figures[name]:.6g}; the search's limit is {self.setup.limits[name]:.6g}",
            )
            for name in names
            if name in self.setup.limits and self.figures[name] > self.setup.limits[name]
        )


Stage = Callable[[_Attempt], Violations]


def lint_candidate(attempt: _Attempt) -> Violations:
    """Refuses what the accelerator does not run; nothing has been trained by then."""
    target = attempt.workload.target
    try:
        findings = lint(attempt.graph, target, plan=attempt.plan)
    except CaptureError as error:
        findings = lint(None, target, capture_failures=[error.failure])
    by_rule: dict[str, list[Finding]] = defaultdict(list)
    for each in findings:
        if each.severity is Severity.ERROR:
            by_rule[each.rule].append(each)
    return tuple(
        Violation(constraint=f"lint.{rule}", amount=len(each), reason=_explain(each)) for rule, each in by_rule.items()
    )


def _explain(findings: Sequence[Finding]) -> str:
    first = findings[0]
    where = f" in {first.module_path}" if first.module_path else ""
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{first.found}{where}; allowed: {first.allowed}{more}"


def count_costs(attempt: _Attempt) -> Violations:
    """Work and memory against the limits; recognises a network that was scored under another candidate's name."""
    graph, decided = attempt.graph, attempt.plan
    attempt.figures["macs"] = costs.macs(graph)
    attempt.figures["weight_bytes"] = costs.weight_bytes(graph, decided)
    attempt.figures["activation_bytes"] = costs.activation_bytes(graph, decided)
    attempt.network = network_hash(graph, decided)
    attempt.twin = ResultFiles(attempt.setup.results).same_network(attempt.network, attempt.candidate)
    return attempt.beyond_limits(("macs", "weight_bytes", "activation_bytes"))


def predict_latency(attempt: _Attempt) -> Violations:
    """Refuses, untrained, what is too slow even at the fast end of its interval.

    Raises:
        InputError: the network cannot be predicted, and the search needs the figure.
    """
    predict = attempt.setup.predict
    if predict is None:
        return ()
    try:
        found = predict(attempt.graph, attempt.plan)
    except InputError:
        if attempt.setup.prediction_needed:
            raise
        return ()
    attempt.figures["predicted_ms"] = found.latency_ms
    if math.isfinite(found.high_ms):  # a table with few whole networks promises no interval
        attempt.figures["predicted_ms_low"], attempt.figures["predicted_ms_high"] = found.low_ms, found.high_ms
    violations, limit = attempt.beyond_limits(("predicted_ms",)), attempt.setup.limits.get("latency_ms", math.inf)
    if found.low_ms <= limit:
        return violations
    too_slow = (
        f"latency_ms is predicted as {found.latency_ms:.4g}, at least {found.low_ms:.4g}; "
        f"the search's limit is {limit:.6g}"
    )
    return (*violations, Violation(constraint="latency_ms", amount=found.low_ms / limit - 1, reason=too_slow))


def train_candidate(attempt: _Attempt) -> Violations:
    """Trains shortly; candidates that differ in formats only share the weights of the one that came first."""
    path = attempt.setup.folder / "weights" / f"{hash_of(dict(attempt.architecture))}.safetensors"
    if path.exists():
        attempt.model.load_state_dict(load_file(path))
    else:
        attempt.workload.train(attempt.model)
        state = {name: value.detach().clone().contiguous() for name, value in attempt.model.state_dict().items()}
        replace_file(path, save(state))
    return ()


def score_quantized(attempt: _Attempt) -> Violations:
    """Quantizes after training, exports, and scores the exported file as its runtime runs it."""
    captured = capture(attempt.model, attempt.workload.example(attempt.model))
    quantized = quantize(captured, attempt.scheme, attempt.workload.calibration(attempt.model))
    export_onnx_qdq(quantized, attempt.artifact)
    attempt.figures["accuracy"] = attempt.workload.accuracy(attempt.model, attempt.artifact)
    return ()


def measure_latency(attempt: _Attempt) -> Violations:
    """Times the exported file against the study's reference."""
    assert attempt.setup.reference is not None
    latency = measure_against(attempt.setup.reference, attempt.artifact)
    attempt.figures["latency_ms"] = latency.latency_ms
    attempt.figures["latency_ms_low"], attempt.figures["latency_ms_high"] = latency.low_ms, latency.high_ms
    return attempt.beyond_limits(("latency_ms",))


STAGES: tuple[tuple[str, Stage], ...] = (
    ("lint", lint_candidate),
    ("costs", count_costs),
    ("predict", predict_latency),
    ("train", train_candidate),
    ("quantize", score_quantized),
)
MEASURE: tuple[str, Stage] = ("measure", measure_latency)
