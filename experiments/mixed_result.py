"""What mixed precision has chosen, as it stands in the record of the quantize stage."""

from __future__ import annotations

from typing import Literal

from bitwright.experiments.record import Figure, Part


class FrontPoint(Part):
    """A mix of formats that no other found beats in both.

    Attributes:
        cost: of the whole network, in its own unit.
        sqnr: of the results against float.
        shares: groups in each format.
    """

    cost: float
    sqnr: float
    shares: dict[str, int]


class GroupChoice(Part):
    """One group of layers that go together.

    Attributes:
        group: its module.
        format: what it got.
        macs: multiply-accumulates.
        noise: of each other format than float32 alone, relative to the results' signal.
        measured: of these, which were run; the others are estimated from gradients.
    """

    group: str
    format: str
    macs: int
    noise: dict[str, float]
    measured: tuple[str, ...]


class MixedResult(Part):
    """Formats by layer under budgets.

    Attributes:
        groups: every choice, in the order of the network.
        limits: what each cost was allowed to be.
        costs: what the chosen network costs.
        sqnr: of the chosen network's results before its final calibration.
        found_by: the integer program, the greedy heuristic, the best of them improved, or one format for all.
        ends: each cost with everything in float and with everything in the scheme's own formats.
        front: of the first cost and SQNR.
        overrides: the same choice as a recipe's `quantize.overrides`.
    """

    groups: tuple[GroupChoice, ...]
    limits: dict[str, Figure]
    costs: dict[str, Figure]
    sqnr: Figure
    found_by: Literal["program", "greedy", "refined", "one format"]
    ends: dict[str, tuple[float, float]]
    front: tuple[FrontPoint, ...] = ()
    overrides: tuple[dict[str, object], ...] = ()
