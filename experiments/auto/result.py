"""What `quantize --auto` tried and chose, as it stands in the record under `stages.auto.result`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bitwright.experiments.record import Gate, Part
from bitwright.experiments.results import EvaluateResult


class Try(Part):
    """One way to quantize, scored on samples that did not calibrate.

    Attributes:
        rung: its place on the ladder, by name.
        what: it does, in words.
        why: it came next, by what the tries before it showed.
        status: `passed` or `failed` the gate; `refused` where it cannot be done here; `stopped` by the time's end.
        key: the hash of everything that the score follows from.
        settings: the recipe's keys that it changes, dotted.
        seconds: quantizing, writing and scoring, when it ran.
        evaluated: metric, drop, agreement and SQNR beside the float network; None where it was not scored.
        calibrated: samples that calibrated.
        gates: what was wanted and found.
        missing: by how much each gate fails, in its own unit; 0 where it holds.
        worst_activation: the activation that its own layer disturbs most, in words.
        worst_weight: the weight that rounding disturbs most, in words.
        mix: how many groups of layers got which format, where formats were mixed.
        reason: why it was refused or stopped.
    """

    rung: str
    what: str
    why: str
    status: Literal["passed", "failed", "refused", "stopped"]
    key: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    evaluated: EvaluateResult | None = None
    calibrated: int = 0
    gates: tuple[Gate, ...] = ()
    missing: tuple[float, ...] = ()
    worst_activation: str = ""
    worst_weight: str = ""
    mix: str = ""
    reason: str = ""

    @property
    def is_scored(self) -> bool:
        """Whether it ran to its end."""
        return self.evaluated is not None


class Skipped(Part):
    """A method that can do nothing for this network, and why."""

    rung: str
    reason: str


class AutoResult(Part):
    """The search for the cheapest method that is good enough.

    Attributes:
        tries: in their order.
        skipped: what was left out.
        chosen: the place of the try whose artefact was written.
        passed: whether it keeps the gate; else it is the nearest.
        minutes: that were allowed.
        spent_minutes: that this call took; tries of earlier calls are not in it.
        text: the outcome in a sentence.
    """

    tries: tuple[Try, ...]
    skipped: tuple[Skipped, ...]
    chosen: int
    passed: bool
    minutes: float
    spent_minutes: float
    text: str
