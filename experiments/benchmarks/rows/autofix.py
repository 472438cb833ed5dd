"""Does each fix hold what it promises on a whole network: parity, its finding gone, less modelled time?

Public architectures first, with seeded random weights; then the driving-style networks, for what no classifier does.
Each fix is taken alone, so that what it brings is its own. A network that cannot be captured, or that a target cannot
plan, is a line of the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bitwright.experiments.benchmarks import driving
from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, Architecture, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.fix import FixedModel, fix
from bitwright.hw_constraints.fixes.base import fix_names, load_fix
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import CaptureError, capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.parity import EXACT, Inputs
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

ROW = "autofix"
LIMIT_S = 480.0  # after that no further network is begun
# By name, the size of the picture where it is not the survey's, and targets on which a fix has something to do.
PUBLIC: tuple[tuple[str, int | None, tuple[str, ...]], ...] = (
    ("resnet18", None, ("amd-dpu",)),
    ("mobilenet_v3_small", 224, ("ti-tda4", "orin-dla")),  # at 96 its pools are small enough
    ("efficientnet_b0", None, ("ethos-u85-1024",)),
    ("vgg11_bn", None, ("ti-tda4",)),
    ("regnety_002", None, ("ti-tda4",)),
    ("r3d_18", None, ("ti-tda4",)),
    ("swin_t", None, ("orin-dla", "amd-dpu")),
    ("davit_tiny", None, ("ti-tda4",)),
    ("vit_b_32", None, ("tensorrt-orin",)),
    ("mobilevit_xxs", None, ("h200",)),
    ("convnext_tiny", None, ("ethos-u85-1024",)),
    ("ghostnet_100", None, ("ethos-u85-1024",)),
    ("resmlp_12_224", None, ("tensorrt-orin", "ethos-u85-1024")),
    ("nasnetalarge", None, ("ethos-u85-1024",)),
)
# Of these no other row makes use: token mixing between two transposes, and branches that each begin with the same ReLU.
OTHERS = (
    Architecture(name="resmlp_12_224", library="timm", task="classification", size=224),
    Architecture(name="nasnetalarge", library="timm", task="classification", size=128),
)
DRIVING = ("x86-vnni", "ethos-u85-1024", "ethos-u65-512", "tensorrt-orin")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one fix did to one network.

    Attributes:
        fix: its name.
        network: the network.
        public: whether that is a published architecture.
        target: the accelerator.
        places: how many times it was made.
        exact: whether it promises the same results.
        error: the largest at any of the places, relative to the tensor's scale.
        sqnr: the lowest of any result, in dB.
        gone: at how many places the finding is gone.
        us: modelled time before and after; None where the target has no cost model.
        unknown: how many operators that time leaves out, before and after: a host's above all.
    """

    fix: str
    network: str
    public: bool
    target: str
    places: int
    exact: bool
    error: float
    sqnr: float
    gone: int
    us: tuple[float, float] | None
    unknown: tuple[int, int] | None

    @property
    def is_faster(self) -> bool:
        """Whether it surely saves modelled time: what the model leaves out takes no negative time before."""
        return bool(self.us and self.unknown and self.us[1] < self.us[0] and self.unknown[1] <= self.unknown[0])

    @property
    def is_moved(self) -> bool:
        """Whether the totals say nothing: a higher one, of operators that the model had no figure for before."""
        return bool(self.us and self.unknown and self.us[1] >= self.us[0] and self.unknown[1] < self.unknown[0])

    def line(self) -> dict[str, Any]:
        """For the table."""
        before, after = self.us or (None, None)
        unknown_before, unknown_after = self.unknown or (None, None)
        return {
            "fix": self.fix,
            "network": self.network,
            "public": self.public,
            "target": self.target,
            "places": self.places,
            "kind": "exact" if self.exact else "approximate",
            "error": self.error,
            "SQNR, dB": self.sqnr,
            "findings gone": self.gone,
            "us before": before,
            "us after": after,
            "not modelled before": unknown_before,
            "not modelled after": unknown_after,
            "saves time": self.is_faster,
        }


@dataclass
class Trials:
    """What was tried so far.

    Attributes:
        best: of each fix the outcome that says most.
        refused: networks that could not be captured, or not be planned for a target, with the reason.
        skipped: networks for which the time was not enough.
    """

    best: dict[str, Outcome] = field(default_factory=dict)
    refused: list[dict[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def wants(self, name: str, public: bool) -> bool:
        """Whether another network could say more about a fix."""
        known = self.best.get(name)
        return known is None or _rank(known) < (True, public, False)

    def add(self, outcome: Outcome) -> None:
        """Keeps an outcome that says more than those before."""
        known = self.best.get(outcome.fix)
        if known is None or _rank(outcome) > _rank(known):
            self.best[outcome.fix] = outcome


def _rank(outcome: Outcome) -> tuple[bool, bool, bool]:
    """Time saved counts most, then that the network is public, then operators taken off a host."""
    return (outcome.is_faster, outcome.public, outcome.is_moved)


def run(bench: Bench) -> list[Record]:
    """Tries every fix on every network until each has one where it saves time, public ones first."""
    torch.set_num_threads(1)
    trials, begun = Trials(), time.monotonic()
    for name, public, targets, load in _networks(bench, trials):
        if time.monotonic() - begun > LIMIT_S:
            trials.skipped.append(name)
            continue
        try:
            captured, args = load()
        except (CaptureError, InputError) as error:  # the linter's matter: it says on which line
            trials.refused.append(_refusal(name, "", error))
            continue
        for target in targets:
            try:
                for outcome in _outcomes(name, public, captured, args, target, trials):
                    trials.add(outcome)
            except InputError as error:
                trials.refused.append(_refusal(name, target, error))
    return _records(trials)


def _refusal(network: str, target: str, error: Exception) -> dict[str, str]:
    return {"network": network, "target": target, "reason": str(error).splitlines()[0]}


Loaded = tuple[CapturedModel, tuple[Any, ...]]


def _networks(bench: Bench, trials: Trials) -> Iterator[tuple[str, bool, tuple[str, ...], Callable[[], Loaded]]]:
    try:
        install_library(bench.home)
    except InputError as error:  # no package index within reach
        trials.refused.append(_refusal(", ".join(name for name, _, _ in PUBLIC), "", error))
    else:
        known = {each.name: each for each in (*ARCHITECTURES, *OTHERS)}
        for name, size, targets in PUBLIC:
            architecture = replace(known[name], size=size or known[name].size)
            yield name, True, targets, partial(_public, architecture, bench.home / LIBRARY)
    for name in driving.names():
        yield name, False, DRIVING, partial(_driving, name)


def _public(architecture: Architecture, library: Path) -> Loaded:
    return _folded(*build(architecture, library))


def _folded(model: torch.nn.Module, args: tuple[Any, ...]) -> Loaded:
    return fold_batch_norm(capture(model, args)), args


def _driving(name: str) -> Loaded:
    network = driving.load(name)
    return _folded(network.model, network.args)


def _outcomes(
    network: str, public: bool, captured: CapturedModel, args: tuple[Any, ...], target: str, trials: Trials
) -> Iterator[Outcome]:
    loaded, nodes = load_target(target), captured.graph.by_name
    found = [(each, nodes[each.node]) for each in fix(captured, loaded, fixes=()).before if each.node in nodes]
    for name in fix_names():
        answers = load_fix(name).answers
        if not trials.wants(name, public) or not any(answers(*each) for each in found):
            continue
        fixed = fix(captured, loaded, recorded=[Inputs(args=args)], approximate=True, fixes=[name])
        if fixed.applied:
            yield _outcome(name, network, public, target, fixed)


def _outcome(name: str, network: str, public: bool, target: str, fixed: FixedModel) -> Outcome:
    here = [tensor for each in fixed.applied for tensor in each.here]
    times = [each.time for each in fixed.applied if each.time]
    first, last = (times[0][0], times[-1][1]) if times else (None, None)
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
        us=(first.us, last.us) if first and last else None,
        unknown=(first.unknown, last.unknown) if first and last else None,
    )


def _records(trials: Trials) -> list[Record]:
    outcomes = [trials.best[name] for name in sorted(trials.best)]
    exact = [outcome for outcome in outcomes if outcome.exact]
    approximate = [outcome for outcome in outcomes if not outcome.exact]
    faster = [outcome for outcome in outcomes if outcome.is_faster]
    places = sum(outcome.places for outcome in outcomes)
    return [
        _figure("fixes", len(outcomes), "fixes made on a network", len(fix_names()), outcomes, Reach("≥", 10.0)),
        _figure("exact_error", _worst(exact), "of the scale", len(exact), exact, Reach("≤", EXACT)),
        _figure("approximate_error", _worst(approximate), "of the scale", len(approximate), approximate),
        _figure("findings_left", places - sum(each.gone for each in outcomes), "findings", places, (), Reach("=", 0.0)),
        _figure("faster", len(faster), "fixes that save modelled time", len(outcomes), faster, Reach("≥", 10.0)),
        _figure(
            "faster_public",
            sum(each.public for each in faster),
            "fixes that save modelled time on a public network",
            len(outcomes),
            [each for each in faster if each.public],
            Reach("≥", 10.0),
        ),
        _figure(
            "not_comparable",
            sum(each.is_moved for each in outcomes),
            "fixes that take operators off the host, for which the model has no time",
            len(outcomes),
            [each for each in outcomes if each.is_moved],
        ),
        record(
            f"{ROW}.refused",
            area="hw_constraints",
            value=float(len(trials.refused)),
            unit="networks not captured or not planned",
            n=len(PUBLIC) + len(driving.names()),
            table=trials.refused,
        ),
        record(
            f"{ROW}.skipped",
            area="hw_constraints",
            value=float(len(trials.skipped)),
            unit=f"networks not begun within {LIMIT_S:.0f} s",
            n=len(PUBLIC) + len(driving.names()),
            table=[{"network": name} for name in trials.skipped],
        ),
    ]


def _worst(outcomes: Sequence[Outcome]) -> float:
    return max((each.error for each in outcomes), default=0.0)


def _figure(
    name: str, value: float, unit: str, n: int, outcomes: Sequence[Outcome], reach: Reach | None = None
) -> Record:
    table = [outcome.line() for outcome in outcomes]
    return record(f"{ROW}.{name}", area="hw_constraints", value=float(value), unit=unit, n=n, reach=reach, table=table)
