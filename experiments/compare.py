"""Two runs side by side: what was asked differently, what came out differently, and whether that is more than noise.

Only like is compared with like: a latency ratio needs the same device and threads, a quality the same data. What does
not compare is refused with its reason, not left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bitwright.experiments.comparable import Comparable, comparables
from bitwright.experiments.record import Figure, Record


class Judgement(StrEnum):
    """What a difference amounts to."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    NOISE = "within noise"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that is set or installed differently; None where one side lacks it."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class Change:
    """One quantity in both runs.

    Attributes:
        quantity: its name, with the engine where there are several.
        before: in the first run.
        after: in the second run.
        low: lower end of the 95 % interval of after − before; None when the noise is not known or there is none.
        high: upper end.
        judgement: what it amounts to.
        has_gate: whether the second run's recipe sets a limit on it.
        note: why it is not judged.
        is_measurable: whether measuring both artefacts again decides it better than two records can.
    """

    quantity: str
    before: Figure
    after: Figure
    low: float | None
    high: float | None
    judgement: Judgement
    has_gate: bool
    note: str = ""
    is_measurable: bool = False


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A quantity that does not compare, and why."""

    quantity: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of it.

    Attributes:
        recipe: settings that differ, by dotted key.
        versions: packages that differ.
        changes: the quantities that compare.
        refused: those that do not.
        fallen_gates: gates that held in the first run and fail in the second.
    """

    recipe: tuple[Difference, ...]
    versions: tuple[Difference, ...]
    changes: tuple[Change, ...]
    refused: tuple[Refusal, ...]
    fallen_gates: tuple[str, ...]

    @property
    def regressions(self) -> tuple[str, ...]:
        """What makes the second run unacceptable: worse beyond noise where a gate is set, or a gate that fell."""
        worse = [each.quantity for each in self.changes if each.has_gate and each.judgement is Judgement.WORSE]
        return (*worse, *(f"gate {name}" for name in self.fallen_gates))

    @property
    def lasting_regressions(self) -> tuple[str, ...]:
        """Those of them that stand even where both artefacts are measured again."""
        again = {each.quantity for each in self.changes if each.is_measurable}
        return tuple(each for each in self.regressions if each not in again)


def compare(before: Record, after: Record) -> Comparison:
    """Compares two runs.

    Raises:
        InputError: a run was written by another version.
    """
    first, second = comparables(before), comparables(after)
    changes, refused = [], []
    for name in dict.fromkeys([*first, *second]):
        reason = _refusal(first.get(name), second.get(name))
        if reason:
            refused.append(Refusal(quantity=name, reason=reason))
        else:
            changes.append(_change(name, first[name], second[name]))
    held = {gate.name for gate in before.gates if gate.holds}
    return Comparison(
        recipe=tuple(_differences(before.recipe, after.recipe)),
        versions=tuple(_differences(before.versions, after.versions)),
        changes=tuple(changes),
        refused=tuple(refused),
        fallen_gates=tuple(gate.name for gate in after.gates if gate.holds is False and gate.name in held),
    )


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    flat = dict(_flatten(before)), dict(_flatten(after))
    for key in dict.fromkeys([*flat[0], *flat[1]]):
        values = flat[0].get(key), flat[1].get(key)
        if values[0] != values[1]:
            yield Difference(key=key, before=values[0], after=values[1])


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flatten(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _refusal(first: Comparable | None, second: Comparable | None) -> str:
    if first is None or second is None:
        return f"only the {'second' if first is None else 'first'} run has it"
    if first.figure.unit != second.figure.unit:
        return f"{first.figure.unit} against {second.figure.unit}"
    parts = [
        f"another {name}: {first.conditions.get(name)} against {second.conditions.get(name)}"
        for name in dict.fromkeys([*first.conditions, *second.conditions])
        if first.conditions.get(name) != second.conditions.get(name)
    ]
    return "; ".join(parts)


def _change(name: str, first: Comparable, second: Comparable) -> Change:
    low, high = difference_interval(first.interval, second.interval)
    judgement = Judgement.NOT_JUDGED
    if not second.not_judged:
        judgement = _judge(second.figure.value - first.figure.value, low, high, second)
    return Change(
        quantity=name,
        before=first.figure,
        after=second.figure,
        low=low,
        high=high,
        judgement=judgement,
        has_gate=second.has_gate,
        note=second.not_judged,
        is_measurable=second.is_measurable,
    )


def _judge(difference: float, low: float | None, high: float | None, quantity: Comparable) -> Judgement:
    if difference == 0:
        return Judgement.SAME
    if low is None or high is None:
        if not quantity.is_exact:
            return Judgement.NOT_JUDGED
    elif low <= 0 <= high:
        return Judgement.NOISE
    return Judgement.BETTER if (difference > 0) == quantity.higher_is_better else Judgement.WORSE


Ends = tuple[float, float, float]


def difference_interval(first: Ends | None, second: Ends | None) -> tuple[float | None, float | None]:
    """The 95 % interval of second − first from the intervals of both, which need not be symmetric.

    Zou and Donner, "Construction of confidence limits about effect measures: a general approach", Statistics in
    Medicine 27 (2008), equation 7 (MOVER). Holds for independent estimates; runs on the same samples are positively
    correlated, which makes it too wide rather than too narrow.

    Args:
        first: value, lower end, upper end; None when the noise is not known.
        second: as `first`.
    """
    if first is None or second is None:
        return None, None
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    below, above = math.hypot(b - b_low, a_high - a), math.hypot(b_high - b, a - a_low)
    return b - a - below, b - a + above
