"""Does each fix hold what it promises on a whole network: parity, its finding gone, less modelled time?

Public architectures first, with seeded random weights; then the driving-style networks, for what no classifier does.
Each fix is taken alone, so that what it brings is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bitwright.experiments.benchmarks import driving
from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.fix import FixedModel, fix
from bitwright.hw_constraints.fixes.base import fix_names, load_fix
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import CaptureError, capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.parity import EXACT, Inputs
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

ROW = "autofix"
# Each with targets on which it has something to fix.
PUBLIC: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("resnet18", ("amd-dpu",)),
    ("mobilenet_v3_small", ("amd-dpu", "edge-tpu")),
    ("efficientnet_b0", ("edge-tpu", "amd-dpu")),
    ("vgg11_bn", ("ethos-u85-1024",)),
    ("r3d_18", ("ethos-u85-1024", "tesla-fsd-hw3")),
    ("vit_b_32", ("hexagon-htp", "ethos-u85-1024")),
    ("swin_t", ("ethos-u85-1024", "amd-dpu")),
    ("convnext_tiny", ("ethos-u85-1024", "edge-tpu")),
    ("ghostnet_100", ("ethos-u85-1024", "x86-vnni")),
    ("tinynet_a", ("ethos-u85-1024",)),
    ("mobilevit_xxs", ("ethos-u85-1024",)),
)
DRIVING = ("x86-vnni", "ethos-u85-1024", "ethos-u65-512", "tensorrt-orin")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one fix did to one network."""

    fix: str
    network: str
    public: bool
    target: str
    places: int
    exact: bool
    error: float
    sqnr: float
    gone: int
    before_us: float | None
    after_us: float | None

    @property
    def ratio(self) -> float | None:
        """Modelled time after it, over the time before it."""
        return self.after_us / self.before_us if self.before_us and self.after_us is not None else None

    def line(self) -> dict[str, Any]:
        """For the table."""
        return {
            "fix": self.fix,
            "network": self.network,
            "target": self.target,
            "places": self.places,
            "kind": "exact" if self.exact else "approximate",
            "error": self.error,
            "SQNR, dB": self.sqnr,
            "findings gone": self.gone,
            "us before": self.before_us,
            "us after": self.after_us,
            "ratio": self.ratio,
        }


def run(bench: Bench) -> list[Record]:
    """Tries every fix on every network until each has one where it saves time, public ones first."""
    torch.set_num_threads(1)
    best: dict[str, Outcome] = {}
    for network, public, captured, args, targets in _networks(bench):
        for target in targets:
            for outcome in _outcomes(network, public, captured, args, target, best):
                if outcome.fix not in best or _rank(outcome) > _rank(best[outcome.fix]):
                    best[outcome.fix] = outcome
    return _records([best[name] for name in sorted(best)])


def _rank(outcome: Outcome) -> tuple[bool, bool]:
    """Time saved counts most, then that the network is public."""
    return (outcome.ratio is not None and outcome.ratio < 1.0, outcome.public)


def _networks(bench: Bench) -> Iterator[tuple[str, bool, CapturedModel, tuple[Any, ...], tuple[str, ...]]]:
    install_library(bench.home)
    known = {each.name: each for each in ARCHITECTURES}
    for name, targets in PUBLIC:
        model, args = build(known[name], bench.home / LIBRARY)
        yield name, True, fold_batch_norm(capture(model, args)), args, targets
    for name in driving.names():
        network = driving.load(name)
        try:
            captured = fold_batch_norm(capture(network.model, network.args))
        except CaptureError:
            continue  # the linter's matter: what cannot be captured cannot be rewritten
        yield name, False, captured, network.args, DRIVING


def _outcomes(
    network: str,
    public: bool,
    captured: CapturedModel,
    args: tuple[Any, ...],
    target: str,
    best: dict[str, Outcome],
) -> Iterator[Outcome]:
    for name in fix_names():
        if name in best and _rank(best[name]) >= (True, public):
            continue
        fixed = fix(captured, load_target(target), recorded=[Inputs(args=args)], approximate=True, fixes=[name])
        if fixed.applied:
            yield _outcome(name, network, public, target, fixed)


def _outcome(name: str, network: str, public: bool, target: str, fixed: FixedModel) -> Outcome:
    here = [tensor for each in fixed.applied for tensor in each.here]
    times = [each.time for each in fixed.applied if each.time]
    if times and times[0][0].unknown != times[-1][1].unknown:
        times = []  # the model knows more of the network after than before: the two totals are of different things
    left = {(each.rule, each.node) for each in fixed.after}
    return Outcome(
        fix=name,
        network=network,
        public=public,
        target=target,
        places=len(fixed.applied),
        exact=load_fix(name).exact,
        error=max((each.max_rel for each in here), default=0.0),
        sqnr=min((each.parity.sqnr for each in fixed.applied), default=0.0),
        gone=sum((each.finding.rule, each.finding.node) not in left for each in fixed.applied),
        before_us=times[0][0].us if times else None,
        after_us=times[-1][1].us if times else None,
    )


def _records(outcomes: Sequence[Outcome]) -> list[Record]:
    table = [outcome.line() for outcome in outcomes]
    exact = [outcome for outcome in outcomes if outcome.exact]
    faster = [outcome for outcome in outcomes if outcome.ratio is not None and outcome.ratio < 1.0]
    places = sum(outcome.places for outcome in outcomes)
    figures = (
        ("fixes", float(len(outcomes)), "fixes made on a network", len(fix_names()), Reach("≥", 10.0)),
        (
            "exact_error",
            max((each.error for each in exact), default=0.0),
            "of the scale",
            len(exact),
            Reach("≤", EXACT),
        ),
        ("findings_left", float(places - sum(each.gone for each in outcomes)), "findings", places, Reach("=", 0.0)),
        ("faster", float(len(faster)), "fixes that save modelled time", len(outcomes), Reach("≥", 10.0)),
        (
            "faster_public",
            float(sum(each.public for each in faster)),
            "fixes that save modelled time on a public network",
            len(outcomes),
            Reach("≥", 10.0),
        ),
    )
    return [
        record(f"{ROW}.{name}", area="hw_constraints", value=value, unit=unit, n=n, reach=reach, table=table)
        for name, value, unit, n, reach in figures
    ]
