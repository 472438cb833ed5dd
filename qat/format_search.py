"""A number format for each layer, weights and activations, learned by gradient under a budget of whatever costs.

Each layer computes with a mixture of its weight in every candidate format, and hands on a mixture of its result,
`sum_k p_k fq_k(x)` with `p = softmax((a + gumbel) / T)` (Wu et al. 2018, Mixed Precision Quantization of ConvNets via
Differentiable Neural Architecture Search; one convolution with a composite weight as in Cai & Vasconcelos 2020,
EdMIPS). The expected cost `C = C_0 + sum_units sum_k p_k c_k` joins the loss by a multiplier that rises while the
budget is exceeded: `loss + m (C / budget - 1)`, `m <- max(0, m + rate (C / budget - 1))` (the method of multipliers).

What decides together is taken from `quant.mixed_precision`: operators that run as one, that share weights, and, where
candidates write other codes, all whose results share scale and zero point. So every choice is a scheme that the plan,
training and the exporters follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from bitwright.qat.batches import Arguments, rows
from bitwright.qat.mixtures import Deciding, choices_of, put_in
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.graph import Graph
from bitwright.quant.mixed_precision.formats import LayerFormat
from bitwright.quant.mixed_precision.problem import Problem
from bitwright.quant.mixed_precision.tables import Table, expand
from bitwright.quant.plan import QuantPlan
from bitwright.quant.scheme import Override, QuantScheme

Cost = Callable[[Graph, QuantPlan], float]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How it is searched.

    Attributes:
        steps: after which the mixture is as good as decided.
        first_temperature: `T` at the start; the mixture is soft.
        last_temperature: at the end; one format has nearly all of it.
        multiplier_rate: how fast the price of a budget that is exceeded rises.
    """

    steps: int
    first_temperature: float = 1.0
    last_temperature: float = 0.1
    multiplier_rate: float = 0.05

    def temperature(self, step: int) -> float:
        """Falls by the same factor each step."""
        part = min(1.0, step / self.steps)
        ratio: float = (self.last_temperature / self.first_temperature) ** part
        return self.first_temperature * ratio


class FormatSearch:
    """Learns which format each layer gets.

        search = FormatSearch(model, scheme, (LayerFormat(name="int8"), int4), samples, cost=cost, budget=2e5, search=…)
        optimizer = Adam([{"params": model.parameters()}, {"params": search.parameters(), "lr": 0.05}])
        for batch in loader: ...; (loss + search.penalty()).backward(); optimizer.step(); search.on_step()
        scheme = scheme.with_overrides(*search.finish())

    `qat` knows no hardware: `cost(graph, plan)` is milliseconds of a table or a model, bytes, or what the caller likes,
    of the whole network; what a layer costs in a format is what its change alone makes of that.

    Args:
        model: the network in float; it computes with mixtures until `finish`.
        scheme: of everything that no candidate changes.
        formats: the candidates, none of them float; the first is the one that others are compared with.
        samples: calibration batches, arguments of `forward`.
        cost: of the network under a plan.
        budget: the largest cost; or a function of what all in the first format and of what the least cost.
        search: how long and how hard.

    Raises:
        InputError: one format alone, float among them, nothing to decide, or a budget that the cheapest choice exceeds.
    """

    def __init__(
        self,
        model: nn.Module,
        scheme: QuantScheme,
        formats: Sequence[LayerFormat],
        samples: Sequence[Arguments],
        *,
        cost: Cost,
        budget: float | Callable[[float, float], float],
        search: SearchSettings,
    ) -> None:
        names = tuple(each.name for each in formats)
        if len(set(names)) < 2:
            raise InputError(f"formats {list(names)}; give two formats at least")
        if floats := [each.name for each in formats if each.is_float]:
            raise InputError(f"format {floats[0]!r} has no codes that a gradient could choose; leave it out")
        example = rows(samples[0], 1)[0]
        captured = capture(model, example)
        folded = fit_scheme(captured, scheme, trains_on=True)
        self.problem = Problem(graph=folded.graph, scheme=scheme, formats=tuple(formats), allowed=names)
        self.formats, self.search, self._cost = names, search, cost
        units = _units(self.problem)
        choices = choices_of(self.problem, units)
        deciding = {each.unit for each in choices.values()}
        self.units = {name: groups for name, groups in units.items() if name in deciding}
        if not self.units:
            raise InputError(
                f"scheme {scheme.name!r} quantizes nothing of this model that formats {list(names)} differ in"
            )
        self.table = self._costs()
        if not any(self.table.alone.values()):
            raise InputError(
                f"the cost of this network is {self.table.constant:g} whichever of formats {list(names)} its layers "
                "have, so that no budget can choose between them; give a cost that knows them, such as size"
            )
        least = self.cost(self._cheapest())
        self.budget = budget(self.table.constant, least) if callable(budget) else budget
        if least > self.budget:
            raise InputError(f"budget = {self.budget:g}; the cheapest formats of all layers cost {least:g} together")
        self.step, self.multiplier = 0, 0.0
        device = next(model.parameters()).device
        self.deciding = {name: Deciding(len(names)).to(device) for name in self.units}
        self._mixtures = put_in(model, captured, folded, self.problem, choices, self.deciding, samples, example)
        self._warm(0)

    def assignment(self, picks: Mapping[str, str]) -> dict[str, str]:
        """The format of each group of `problem`, from that of each unit."""
        chosen = {group: picks[unit] for unit, groups in self.units.items() for group in groups}
        return {**self.problem.uniform(self.formats[0]), **chosen}

    def cost(self, picks: Mapping[str, str]) -> float:
        """What the whole network costs with these formats of its units."""
        return self._cost(self.problem.graph, self.problem.plan(self.assignment(picks)))

    def parameters(self) -> Iterator[nn.Parameter]:
        """What decides, one logit for each unit and format; for a group of their own in the optimizer."""
        return (each.logits for each in self.deciding.values())

    def expected_cost(self) -> torch.Tensor:
        """`C` of the module's docstring, without the noise; a scalar."""
        first = next(iter(self.deciding.values())).logits
        costs = {
            name: first.new_tensor([self.table.alone.get((name, fmt), 0.0) for fmt in self.formats])
            for name in self.units
        }
        parts = [each.expected() @ costs[name] for name, each in self.deciding.items()]
        return self.table.constant + torch.stack(parts).sum()

    def penalty(self) -> torch.Tensor:
        """What joins the loss."""
        return self.multiplier * (self.expected_cost() / self.budget - 1)

    def on_step(self) -> None:
        """To be called after each step of the optimizer."""
        self.step += 1
        over = float(self.expected_cost().detach()) / self.budget - 1
        self.multiplier = max(0.0, self.multiplier + self.search.multiplier_rate * over)
        self._warm(self.step)

    def chosen(self) -> dict[str, str]:
        """The likeliest format of each unit, made cheaper where that is likeliest until the budget really holds."""
        logs = {name: each.expected().detach().log() for name, each in self.deciding.items()}
        picks = {name: self.formats[int(each.argmax())] for name, each in logs.items()}
        while self.cost(picks) > self.budget:
            steps = list(self._cheaper(picks))
            if not steps:
                raise InputError(
                    f"budget = {self.budget:g}; what each layer costs alone says that {self.cost(picks):g} is the "
                    "least: costs of layers do not add up here, give a larger budget"
                )
            name, fmt = min(steps, key=lambda step: self._loss_per_saving(logs, picks, *step))
            picks[name] = fmt
        return picks

    def finish(self) -> tuple[Override, ...]:
        """Gives the layers their own weights back, as trained; returns what the scheme has to be extended by."""
        mixed = self.problem.mixed_scheme(self.assignment(self.chosen()))
        self._mixtures.take_out()
        return mixed.overrides[len(self.problem.scheme.overrides) :]

    def _warm(self, step: int) -> None:
        for each in self.deciding.values():
            each.draw(self.search.temperature(step))

    def _costs(self) -> Table:
        return expand(self.cost, dict.fromkeys(self.units, self.formats[0]), self.formats, ())

    def _cheapest(self) -> dict[str, str]:
        return {name: sorted(self.formats, key=partial(self._price, name))[0] for name in self.units}

    def _price(self, name: str, fmt: str) -> float:
        return self.table.alone.get((name, fmt), 0.0)

    def _cheaper(self, picks: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for name, pick in picks.items():
            yield from ((name, fmt) for fmt in self.formats if self._price(name, fmt) < self._price(name, pick))

    def _loss_per_saving(
        self, logs: Mapping[str, torch.Tensor], picks: Mapping[str, str], name: str, fmt: str
    ) -> float:
        lost = logs[name][self.formats.index(picks[name])] - logs[name][self.formats.index(fmt)]
        return float(lost) / (self._price(name, picks[name]) - self._price(name, fmt))


def _units(problem: Problem) -> dict[str, tuple[str, ...]]:
    """Groups that decide together, by the name of the first: tied results have codes of one kind."""
    root = {name: name for name in problem.groups}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    if len({problem.codes(name) for name in problem.allowed}) > 1:
        for tie in problem.ties:
            first, *others = sorted(tie.groups, key=list(problem.groups).index)
            for other in others:
                root[find(other)] = find(first)
    units: dict[str, list[str]] = {}
    for name in problem.groups:
        units.setdefault(find(name), []).append(name)
    return {name: tuple(groups) for name, groups in units.items()}
