"""The search in words: a line for each try, and the outcome."""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.experiments.auto.result import Skipped, Try
from bitwright.experiments.console import Console
from bitwright.experiments.figure_text import format_interval, format_value
from bitwright.experiments.recipe import AGREEMENT
from bitwright.experiments.record import Figure, Gate


def say_try(console: Console, done: Try, number: int) -> None:
    """What was tried, why, how long it took and what came out, in one line."""
    console.say(f"  {number}. {try_line(done)}")


def say_skipped(console: Console, skipped: Skipped) -> None:
    """What was left out."""
    console.say(f"  –  {skipped.rung}: left out: {skipped.reason}")


def try_line(done: Try) -> str:
    """`gptq (weights …; costs …): failed in 12.3 s: drop of top1 0.40 % (95 % from …), agreement …, SQNR …`."""
    took = f" in {done.seconds:.1f} s" if done.is_scored else ""
    found = ", ".join([*figures(done), *([done.mix] if done.mix else [])]) or done.reason
    return f"{done.rung} ({done.what}; {done.why}): {done.status}{took}: {found}"


def figures(done: Try) -> list[str]:
    """The figures of a scored try with their intervals; of an agreement that is the metric itself no drop."""
    evaluated = done.evaluated
    if evaluated is None:
        return []
    drop = [] if evaluated.metric == AGREEMENT else [f"drop of {evaluated.metric} {_said(evaluated.drop)}"]
    agreement = [] if evaluated.agreement is None else [f"agreement {_said(evaluated.agreement)}"]
    return [*drop, *agreement, f"SQNR {_said(evaluated.sqnr)}"]


def _said(figure: Figure) -> str:
    interval = format_interval(figure)
    return format_value(figure.value, figure.unit) + (f" ({interval})" if interval else "")


def outcome(tries: Sequence[Try], chosen: int, minutes: float) -> str:
    """The outcome in a sentence."""
    best = tries[chosen]
    found = ", ".join(figures(best))
    if best.status == "passed":
        return f"{best.rung} keeps the gate ({wanted(best.gates)}): {found}"
    why = f"{minutes:g} minutes were up" if tries[-1].status == "stopped" else "nothing is left to try"
    return f"no try keeps the gate ({wanted(best.gates)}), and {why}; the nearest is {best.rung}: {found}"


def wanted(gates: Sequence[Gate]) -> str:
    """What the gates ask for."""
    return ", ".join(f"{gate.name} {gate.wanted}" for gate in gates)
