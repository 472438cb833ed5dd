"""The search: settings of the whole network, assignments from profiles, then step by step.

Candidates of a step race each other: all are measured a little, the better half a little more. What wins has won
partly by luck, so it is measured again, alone against the best so far, and only that counts. It also must not be less
faithful to the float network than full int8 is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitwright.hw_constraints.autotune import spelling
from bitwright.hw_constraints.autotune.decision import Decision
from bitwright.hw_constraints.autotune.estimate import Estimate
from bitwright.hw_constraints.autotune.fidelity import worse
from bitwright.hw_constraints.autotune.laboratory import Effort, Laboratory, OutOfBudgetError
from bitwright.hw_constraints.autotune.moves import Move, moves, union
from bitwright.hw_constraints.measure import Ratio

Predict = Callable[[Path], float]

_AT_ONCE = 6  # candidates of a race: more would wait long for each other's rounds
_HEATS = tuple(Effort(processes=1, half_width=width, seconds=2.0) for width in (0.012, 0.006))
_CONFIRM = Effort(processes=4, half_width=0.006, seconds=1.0)
_FRUITLESS = 3  # races in a row without a winner after which the search ends


@dataclass(kw_only=True, eq=False)
class Search:
    """A search in one laboratory.

    Attributes:
        lab: measures.
        predict: an artefact's latency by a model, to order what is tried; None orders by the profiles.
        best: the decision that the search has come to.
        steps: every decision that was the best for a while, full int8 first.
    """

    lab: Laboratory
    predict: Predict | None = None

    def __post_init__(self) -> None:
        self.best = Decision()
        self.steps: list[Decision] = [self.best]
        self._full = self.lab.name(self.best)
        self._lost: set[str] = set()
        self._ratio: dict[Decision, float] = {}

    def run(self) -> Decision:
        """Searches until nothing is left to try or the budget is spent."""
        try:
            self._settings()
            estimate = self.lab.estimate(self.lab.name(replace(self.best, floats=frozenset())))
            price = self._assignments(estimate)
            self._steps(estimate, price)
        except OutOfBudgetError:
            pass
        return self.best

    def _settings(self) -> None:
        """What concerns the whole network: real values in front of float operators, the runtime's own operators."""
        everywhere = frozenset(self.lab.candidates.sites.by_name)
        options = [Move(what="no Q/DQ in front of float operators", decision=Decision(real=everywhere), estimate_us=0)]
        if self.lab.runtime in spelling.RUNTIMES and self._has_silu:
            options += [
                Move(what="SiLU as one operator of the runtime's", decision=Decision(spelled=True), estimate_us=0),
                Move(what="both", decision=Decision(real=everywhere, spelled=True), estimate_us=0),
            ]
        self._race(options)

    @property
    def _has_silu(self) -> bool:
        return any(node.op == "silu" for node in self.lab.candidates.sites.graph.nodes)

    def _assignments(self, estimate: Estimate) -> float:
        """Races the assignments that are best at some price of conversions; returns the price that was learnt.

        Low prices first: those assignments mix most. What each file took tells what conversions really cost.
        """
        start = self.best
        prices = sorted(estimate.assignments().items(), key=lambda item: item[1])
        options = [self._assignment(estimate, floats, price) for floats, price in prices]
        measured: dict[frozenset[str], float] = {start.floats: 1.0}
        while options:
            heat, options = options[:_AT_ONCE], options[_AT_ONCE:]
            before = self.best
            self._race(heat)
            measured.update({move.decision.floats: self._ratio[move.decision] for move in heat
                             if before == start and move.decision in self._ratio})  # fmt: skip
            if self.best == before or self.best != heat[-1].decision:
                break  # dearer conversions only lead further away
        price = estimate.learnt_price(measured)
        again = estimate.cut(price)
        self._race([self._assignment(estimate, again, price)])
        return price

    def _assignment(self, estimate: Estimate, floats: frozenset[str], price: float) -> Move:
        count = len(estimate.sites.by_name)
        return Move(
            what=f"best at {1e3 * price:.2g} ns a converted element: {len(floats)} of {count} sites in float",
            decision=replace(self.best, floats=floats),
            estimate_us=estimate.total_us(floats, price),
        )

    def _steps(self, estimate: Estimate, price: float) -> None:
        fruitless, together = 0, None
        while fruitless < _FRUITLESS:
            options = self._ordered(moves(self.best, estimate, price))
            # What lost once from elsewhere will hardly win from here: last.
            options.sort(key=lambda move: move.what in self._lost)
            chosen = [move for move in ([together] if together else []) + options if self.lab.is_new(move.decision)]
            chosen = self._distinct(chosen)[:_AT_ONCE]
            if not chosen:
                return
            before = self.best
            better = self._race(chosen)
            fruitless = 0 if self.best != before else fruitless + 1
            together = None
            if self.best != before and len(better) > 1:
                joined = union(before, [move.decision for move in better])
                words = "; ".join(move.what for move in better)
                together = Move(what=f"together: {words}", decision=joined, estimate_us=0.0)

    def _ordered(self, options: list[Move]) -> list[Move]:
        if self.predict is None:
            return options
        predict = self.predict
        few = self._distinct([move for move in options if self.lab.is_new(move.decision)])[: 4 * _AT_ONCE]
        return sorted(few, key=lambda move: predict(self.lab.file(self.lab.name(move.decision))))

    def _distinct(self, options: Sequence[Move]) -> list[Move]:
        """One move for each file."""
        return list({self.lab.name(move.decision): move for move in reversed(options)}.values())[::-1]

    # --- a race ---

    def _race(self, options: Sequence[Move]) -> list[Move]:
        """Measures candidates against the best so far; a confirmed winner becomes the best.

        Returns:
            The candidates that looked faster, the fastest first.
        """
        best = self.lab.name(self.best)
        entered = {self.lab.name(move.decision): move for move in self._distinct(options)}
        entered = {name: move for name, move in entered.items() if self.lab.is_new(move.decision) and name != best}
        entered = dict(list(entered.items())[: self.lab.budget.tries - self.lab.tries])
        if not entered:
            return []
        ratios = self._halve(best, list(entered))
        faster = sorted((name for name in entered if ratios[name].high < 1.0), key=lambda name: ratios[name].value)
        reasons = {name: "not faster than the best so far" for name in entered if name not in faster}
        winner = next((name for name in faster if self._is_confirmed(best, name, reasons)), None)
        for name, move in entered.items():
            reason = "the best so far" if name == winner else reasons.get(name, "another one is faster")
            self._note(name, move, best, ratios[name], reason)
            self._ratio[move.decision] = ratios[name].value
            if ratios[name].low > 1.0:
                self._lost.add(move.what)
        if winner is not None:
            self.best = entered[winner].decision
            self.steps.append(self.best)
        self.lab.discard([name for name in entered if name != winner])
        self.lab.progress(self.lab.tries, f"{len(self.steps) - 1} steps forward")
        return [entered[name] for name in faster]

    def _halve(self, best: str, names: list[str]) -> dict[str, Ratio]:
        """Successive halving: the last ratio that was measured of each candidate."""
        ratios: dict[str, Ratio] = {}
        alive = names
        self.lab.enter(best, names)
        for heat, effort in enumerate(_HEATS, start=1):
            ratios.update(self.lab.ratios([best, *alive], f"race {heat}", effort))
            hopeful = sorted((name for name in alive if ratios[name].low < 1.0), key=lambda name: ratios[name].value)
            alive = hopeful[: (len(alive) + 1) // 2]
            if len(alive) <= 1:
                break
        return ratios

    def _is_confirmed(self, best: str, name: str, reasons: dict[str, str]) -> bool:
        """Whether fresh processes show a candidate faster, and its results are good enough."""
        ratio = self.lab.ratios([best, name], "confirm", _CONFIRM)[name]
        if ratio.high >= 1.0:
            reasons[name] = f"looked faster, and measured again was not: {ratio}"
            return False
        loss = worse(self.lab.fidelity(name), self.lab.fidelity(self._full))
        if loss is not None:
            reasons[name] = f"faster ({ratio}), but less faithful than full int8: {loss}"
        return loss is None

    def _note(self, name: str, move: Move, best: str, ratio: Ratio, reason: str) -> None:
        known = self.lab.journal.knows({"fidelity": name})
        fidelity = self.lab.fidelity(name) if known else None
        self.lab.journal.note(
            {
                "try": self.lab.number(name), "name": name, "move": move.what, "decisions": move.decision.to_json(),
                "against": best, "ratio": ratio.value, "low": ratio.low, "high": ratio.high, "rounds": ratio.rounds,
                "agreement_percent": fidelity and fidelity.agreement_percent,
                "sqnr_db": fidelity and fidelity.mean_sqnr_db,
                "outcome": reason,
            }
        )  # fmt: skip
