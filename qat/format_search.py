"""A number format for each layer's weights, learned by gradient under a budget of whatever costs.

Each layer computes with a mixture of its weight in every candidate format, `sum_k p_k fq_k(w)` with
`p = softmax((a + gumbel) / T)` (Wu et al. 2018, Mixed Precision Quantization of ConvNets via Differentiable Neural
Architecture Search; one convolution with a composite weight as in Cai & Vasconcelos 2020, EdMIPS). The expected cost
`C = sum_layers sum_k p_k c_k` joins the loss by a multiplier that rises while the budget is exceeded:
`loss + m (C / budget - 1)`, `m <- max(0, m + rate (C / budget - 1))` (the method of multipliers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import broadcastable
from bitwright.quant.formats import get_format
from bitwright.quant.learned_steps import Grid, round_weight
from bitwright.quant.scheme import Override, QParamsSpec
from bitwright.quant.weights import choose_weight_qparams

Cost = Callable[[str, str], float]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


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
    """Learns which format each layer's weights get.

        search = FormatSearch(model, spec=scheme.weights, formats=("int8", "int4"), cost=cost, budget=2e5, search=...)
        optimizer = Adam([{"params": model.parameters()}, {"params": search.parameters(), "lr": 0.05}])
        for batch in loader: ...; (loss + search.penalty()).backward(); optimizer.step(); search.on_step()
        scheme = scheme.with_overrides(*search.finish())

    `qat` knows no hardware: `cost(layer, format)` is milliseconds of a table, bytes, or what the caller likes.

    Args:
        model: the network in float; its layers compute with mixtures until `finish`.
        spec: granularity and symmetry of the weights.
        formats: the candidates, of the same for every layer.
        cost: of a layer, by its module name, in a format.
        budget: the largest sum of costs.
        search: how long and how hard.

    Raises:
        InputError: no layers, one format alone, or a budget that the cheapest choice exceeds.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        spec: QParamsSpec,
        formats: Sequence[str],
        cost: Cost,
        budget: float,
        search: SearchSettings,
    ) -> None:
        self.layers = {name: module for name, module in model.named_modules() if isinstance(module, _LAYERS)}
        self.formats, self.budget, self.search = tuple(formats), budget, search
        if len(set(formats)) < 2 or not self.layers:
            raise InputError(
                f"formats {list(formats)} for {len(self.layers)} layers; give two formats and a layer at least"
            )
        self.costs = {name: torch.tensor([cost(name, each) for each in formats]) for name in self.layers}
        cheapest = sum(float(each.min()) for each in self.costs.values())
        if cheapest > budget:
            raise InputError(f"budget = {budget:g}; the cheapest formats of all layers cost {cheapest:g} together")
        self.step, self.multiplier = 0, 0.0
        self.mixtures: dict[str, _Mixture] = {}
        for name, module in self.layers.items():
            mixture = _Mixture(module.weight.detach(), spec, self.formats)
            mixture.temperature = search.temperature(0)
            parametrize.register_parametrization(module, "weight", mixture)
            self.mixtures[name] = mixture

    def parameters(self) -> Iterator[nn.Parameter]:
        """What decides, one logit for each layer and format; for a group of their own in the optimizer."""
        return (mixture.logits for mixture in self.mixtures.values())

    def expected_cost(self) -> torch.Tensor:
        """`C` of the module's docstring, without the noise; a scalar."""
        parts = [mixture.shares() @ self.costs[name].to(mixture.logits) for name, mixture in self.mixtures.items()]
        return torch.stack(parts).sum()

    def penalty(self) -> torch.Tensor:
        """What joins the loss."""
        return self.multiplier * (self.expected_cost() / self.budget - 1)

    def on_step(self) -> None:
        """To be called after each step of the optimizer."""
        self.step += 1
        over = float(self.expected_cost().detach()) / self.budget - 1
        self.multiplier = max(0.0, self.multiplier + self.search.multiplier_rate * over)
        for mixture in self.mixtures.values():
            mixture.temperature = self.search.temperature(self.step)

    def chosen(self) -> Mapping[str, str]:
        """The likeliest format of each layer, made cheaper where that is likeliest until the budget holds."""
        logs = {name: mixture.shares().detach().log() for name, mixture in self.mixtures.items()}
        picks = {name: int(each.argmax()) for name, each in logs.items()}
        while sum(float(self.costs[name][pick]) for name, pick in picks.items()) > self.budget:
            name, pick = min(self._cheaper(picks), key=lambda step: self._loss_per_saving(logs, picks, *step))
            picks[name] = pick
        return {name: self.formats[pick] for name, pick in picks.items()}

    def finish(self) -> tuple[Override, ...]:
        """Gives the layers their own weights back, as trained; returns an exception for each layer of the scheme."""
        picks = self.chosen()
        overrides = []
        for name, module in self.layers.items():
            spec = replace(self.mixtures[name].spec, format=get_format(picks[name]), observer="mse")
            overrides.append(Override(module=name, weights=spec, origin="format search"))
            held: Any = module.parametrizations
            weight = held.weight.original.detach().clone()
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
            with torch.no_grad():
                module.weight.copy_(weight)
        return tuple(overrides)

    def _cheaper(self, picks: Mapping[str, int]) -> list[tuple[str, int]]:
        return [
            (name, other)
            for name, pick in picks.items()
            for other in range(len(self.formats))
            if self.costs[name][other] < self.costs[name][pick]
        ]

    def _loss_per_saving(
        self, logs: Mapping[str, torch.Tensor], picks: Mapping[str, int], name: str, other: int
    ) -> float:
        saved = float(self.costs[name][picks[name]] - self.costs[name][other])
        return float(logs[name][picks[name]] - logs[name][other]) / saved


class _Mixture(nn.Module):
    """The parametrization of one weight."""

    def __init__(self, weight: torch.Tensor, spec: QParamsSpec, formats: Sequence[str]) -> None:
        super().__init__()
        self.spec, self.temperature = spec, 1.0
        self.logits = nn.Parameter(torch.zeros(len(formats), device=weight.device))
        qparams = [
            choose_weight_qparams(weight, replace(spec, format=get_format(name), observer="mse"), 0) for name in formats
        ]
        self.scales = [broadcastable(each.scale, each.axis, weight.dim()) for each in qparams]
        self.grids = [Grid.of(each) for each in qparams]

    def shares(self) -> torch.Tensor:
        """`softmax(a / T)`."""
        return torch.softmax(self.logits / self.temperature, 0)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The composite weight; with Gumbel noise in training, without it in evaluation."""
        noise = -(-torch.rand_like(self.logits).clamp(min=1e-9).log()).log()
        logits = self.logits + noise if self.training else self.logits
        shares = torch.softmax(logits / self.temperature, 0)
        parts = [round_weight(weight, scale, scale, grid) for scale, grid in zip(self.scales, self.grids, strict=True)]
        mixed: Any = sum(share * part for share, part in zip(shares, parts, strict=True))
        result: torch.Tensor = mixed
        return result


def size_cost(model: nn.Module) -> Cost:
    """Bytes of the weights: the cost that needs no device."""
    elements = {name: module.weight.numel() for name, module in model.named_modules() if isinstance(module, _LAYERS)}
    return lambda name, fmt: math.ceil(elements[name] * get_format(fmt).bits / 8)
