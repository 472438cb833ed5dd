"""Weights and activations as mixtures of themselves in several number formats, put into a model and taken out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from bitwright.qat.batches import Arguments
from bitwright.qat.call_sites import Site, Tap
from bitwright.qat.layers import RoundedConstant
from bitwright.qat.methods import Method
from bitwright.qat.prepare import prepare
from bitwright.qat.quantizer import Quantizer
from bitwright.qat.replay import Parts, Replay
from bitwright.qat.written_out import names_of_parts
from bitwright.quant.calibrate import calibrate
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import spread
from bitwright.quant.graph import TensorRef
from bitwright.quant.learned_steps import Grid, round_weight
from bitwright.quant.mixed_precision.problem import Problem
from bitwright.quant.operand_axes import summed_axis, weight_axis
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import QParams
from bitwright.quant.scheme import QParamsSpec
from bitwright.quant.weights import choose_weight_qparams, weight_qparams


class Deciding(nn.Module):
    """One choice between formats.

    Attributes:
        logits: `a`, float32 [formats]; 0 at the start.
    """

    def __init__(self, formats: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(formats))
        self.temperature = 1.0
        self._noise = torch.zeros(formats)

    def draw(self, temperature: float) -> None:
        """Gumbel noise of a step; weights and activations of a choice, and repeated forwards, see the same."""
        self.temperature = temperature
        self._noise = -(-torch.rand_like(self.logits).clamp(min=1e-9).log()).log()

    def expected(self) -> torch.Tensor:
        """`softmax(a / T)`, float32 [formats]."""
        return torch.softmax(self.logits / self.temperature, 0)

    def shares(self, *, noisy: bool) -> torch.Tensor:
        """`softmax((a + gumbel) / T)`, float32 [formats]; without the noise where a network is evaluated."""
        logits = self.logits + self._noise.to(self.logits.device) if noisy else self.logits
        return torch.softmax(logits / self.temperature, 0)


class MixedWeight(nn.Module):
    """The parametrization of one weight: `sum_k p_k fq_k(w)`.

    Args:
        deciding: whose shares; None where there is one grid.
        formats: which of its formats lead to each of the grids.
        qparams: the grids.
        weight: that they were chosen for.
    """

    def __init__(
        self,
        deciding: Deciding | None,
        formats: Sequence[Sequence[int]],
        qparams: Sequence[QParams],
        weight: torch.Tensor,
    ) -> None:
        super().__init__()
        self._deciding, self.formats = [deciding], formats  # in a list: its logits are not the model's
        self.grids = [Grid.of(each) for each in qparams]
        self.scales = [spread(q.scale, weight, axis=q.axis, block_size=q.spec.block_size) for q in qparams]

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The composite weight."""
        decides = self._deciding[0]
        shares = weight.new_ones(1) if decides is None else decides.shares(noisy=self.training)
        mixed: Any = sum(
            shares[list(columns)].sum() * round_weight(weight, scale, scale, grid)
            for columns, scale, grid in zip(self.formats, self.scales, self.grids, strict=True)
        )
        result: torch.Tensor = mixed
        return result


class MixedQuantizer(nn.Module):
    """An activation as a mixture of its candidates, in the place of a `Quantizer`."""

    learned = False

    def __init__(self, deciding: Deciding, formats: Sequence[Sequence[int]], quantizers: Sequence[Quantizer]) -> None:
        super().__init__()
        self._deciding, self.formats = [deciding], formats
        self.candidates = nn.ModuleList(quantizers)

    def begins_at_zero(self, x: torch.Tensor) -> bool:
        """Several grids do not agree on one lowest code."""
        return False

    def forward(self, x: torch.Tensor, *, ceiling: float | None = None) -> torch.Tensor:
        """As `Quantizer.forward`."""
        shares = self._deciding[0].shares(noisy=self.training)
        mixed: Any = sum(
            shares[list(columns)].sum() * quantizer(x, ceiling=ceiling)
            for columns, quantizer in zip(self.formats, self.candidates, strict=True)
        )
        result: torch.Tensor = mixed
        return result


@dataclass(frozen=True, eq=False)
class Mixtures:
    """What was put into a model.

    Attributes:
        replay: mixed activations.
        parametrized: mixed weights, by module and name.
        order: of the parameters of these modules before.
    """

    replay: Replay
    parametrized: Sequence[tuple[nn.Module, str]]
    order: Mapping[nn.Module, Sequence[str]]

    def take_out(self) -> None:
        """The model computes in float with its weights as they are now."""
        self.replay.detach()
        for module, name in self.parametrized:
            held: Any = module.parametrizations
            weight = held[name].original.detach().clone()
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
            with torch.no_grad():
                getattr(module, name).copy_(weight)
            for other in self.order[module]:  # it has come back as the last of the module's parameters
                module._parameters[other] = module._parameters.pop(other)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the formats of a unit make of one tensor: the distinct specs, and which formats lead to each."""

    unit: str
    specs: tuple[QParamsSpec, ...]
    formats: tuple[tuple[int, ...], ...]


def choices_of(problem: Problem, units: Mapping[str, Sequence[str]]) -> dict[TensorRef, Choice]:
    """For each tensor that formats differ in, who decides on it and between what.

    Args:
        problem: whose allowed formats are the candidates.
        units: groups that decide together, by the unit's name.

    Raises:
        InputError: a format leaves a tensor in float that the others quantize.
    """
    first, *others = problem.allowed
    base = problem.plan(problem.uniform(first))
    specs = {**base.activations, **base.weights}
    options: dict[TensorRef, tuple[str, dict[int, QParamsSpec]]] = {}
    for unit, groups in units.items():
        for place, name in enumerate(others, start=1):
            changed = problem.plan({**problem.uniform(first), **dict.fromkeys(groups, name)})
            now = {**changed.activations, **changed.weights}
            if lost := sorted(set(specs) ^ set(now)):
                raise InputError(f"format {name!r} of {unit!r} changes whether {lost[0]} is quantized; leave it out")
            for ref, spec in now.items():
                if spec != specs[ref]:
                    options.setdefault(ref, (unit, {}))[1][place] = spec
    return {
        ref: _choice(unit, [changed.get(place, specs[ref]) for place in range(len(problem.allowed))])
        for ref, (unit, changed) in options.items()
    }


def put_in(
    model: nn.Module,
    captured: CapturedModel,
    folded: CapturedModel,
    problem: Problem,
    choices: Mapping[TensorRef, Choice],
    deciding: Mapping[str, Deciding],
    samples: Sequence[Arguments],
    example: Arguments,
) -> Mixtures:
    """Puts a mixture in the place of every weight and activation that candidates differ in; others are rounded, too.

    Args:
        model: the user's, in float.
        captured: the same in eval mode.
        folded: the same with batch norms folded, of which `problem` has the graph.
        problem: whose allowed formats are the candidates.
        choices: by tensor.
        deciding: by the unit's name.
        samples: calibration batches.
        example: the arguments that it was captured with.

    Raises:
        InputError: see `prepare`.
    """
    uniform = [problem.plan(problem.uniform(name)) for name in problem.allowed]
    found = [calibrate(folded, each, samples) for each in uniform]
    inner = _read_by_parts(captured, folded, uniform[0])
    parts = prepare(
        model,
        captured,
        folded,
        inner,
        {**found[0].qparams, **weight_qparams(folded.graph, inner, found[0].qparams)},
        example,
        dynamic=found[0].dynamic,
        method=Method.RANGES,
        tap=Tap(),
    )
    weights = _mixed_weights(model, folded, uniform[0], choices, deciding)
    mixed = _mixed_quantizers(parts, choices, deciding, [each.qparams for each in found])
    _replace(parts, mixed)
    within = {parts.by_ref[ref]: each for ref, each in weights.items() if ref in inner.weights}
    _replace_in_parts(parts, within)
    # Hung in with the others, so that noise ends where the model is evaluated.
    parts.quantizers.mixed = nn.ModuleList([*mixed.values(), *within.values()])
    order = {module: tuple(module._parameters) for module in model.modules()}
    outer = {ref: each for ref, each in weights.items() if ref not in inner.weights}
    parametrized = list(_parametrized(model, outer))
    replay = Replay(model, parts)
    replay.attach()
    parts.quantizers.to(next(model.parameters()).device)
    return Mixtures(replay, parametrized, order)


def _read_by_parts(captured: CapturedModel, folded: CapturedModel, base: QuantPlan) -> QuantPlan:
    """The plan without weights, except those that only parts of written-out calls read.

    A recurrent layer keeps a list of its own of its parameters, which a parametrization would not reach.
    """
    graph, inside = folded.graph, names_of_parts(captured, folded)
    weights = {
        ref: spec for ref, spec in base.weights.items() if {node.name for node in graph.consumers[ref]} <= inside
    }
    return replace(base, weights=weights, biases={}, quantized=base.quantized & inside)


def _choice(unit: str, specs: Sequence[QParamsSpec]) -> Choice:
    distinct = [spec for place, spec in enumerate(specs) if spec not in specs[:place]]  # specs have no hash
    formats = tuple(tuple(place for place, each in enumerate(specs) if each == spec) for spec in distinct)
    return Choice(unit=unit, specs=tuple(distinct), formats=formats)


def _mixed_quantizers(
    parts: Parts,
    choices: Mapping[TensorRef, Choice],
    deciding: Mapping[str, Deciding],
    qparams: Sequence[Mapping[TensorRef, QParams]],
) -> dict[Quantizer, MixedQuantizer]:
    """What takes the place of each quantizer; those that tensors share are shared."""
    mixed: dict[Quantizer, MixedQuantizer] = {}
    for ref, quantizer in parts.by_ref.items():
        quantizer.observing = False
        choice = choices.get(ref)
        if choice is None or quantizer in mixed or ref not in qparams[0]:
            continue
        made = [Quantizer(qparams[columns[0]][ref], method=Method.RANGES) for columns in choice.formats]
        for each in made:
            each.observing = False
        mixed[quantizer] = MixedQuantizer(deciding[choice.unit], choice.formats, made)
    return mixed


def _replace(parts: Parts, mixed: Mapping[Quantizer, MixedQuantizer]) -> None:
    sites: list[Site | None] = [site for _, site in parts.sites]
    for entry in parts.entries:
        sites += entry.inputs
    for _, written in parts.written_out:
        sites += [site for part in written.parts.values() for site in part.results]
    for site in sites:
        if site is not None and site.quantizer in mixed:
            site.quantizer = cast(Quantizer, mixed[cast(Quantizer, site.quantizer)])


def _replace_in_parts(parts: Parts, mixed: Mapping[Quantizer, MixedWeight]) -> None:
    for _, written in parts.written_out:
        for number, part in written.parts.items():
            operands = {
                place: mixed.get(read.quantizer, read) if isinstance(read, RoundedConstant) else read
                for place, read in part.operands.items()
            }
            written.parts[number] = replace(part, operands=operands)


def _mixed_weights(
    model: nn.Module,
    folded: CapturedModel,
    base: QuantPlan,
    choices: Mapping[TensorRef, Choice],
    deciding: Mapping[str, Deciding],
) -> dict[TensorRef, MixedWeight]:
    """A mixture for each parameter that the plan quantizes.

    What is computed from others, or a constant, keeps the scheme's own format.
    """
    held = dict(model.named_parameters(remove_duplicate=False))
    made = {}
    for ref, spec in base.weights.items():
        if ref.module_path in held:
            values = held[ref.module_path].detach()
            choice = choices.get(ref) or _choice("", [spec])
            grids = [_grid(values, each, folded, ref) for each in choice.specs]
            made[ref] = MixedWeight(deciding.get(choice.unit), choice.formats, grids, values)
    return made


def _parametrized(model: nn.Module, weights: Mapping[TensorRef, MixedWeight]) -> Iterator[tuple[nn.Module, str]]:
    """Registers the mixtures, wherever modules share a parameter."""
    owners: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, own in module.named_parameters(recurse=False):
            owners.setdefault(own, []).append((module, name))
    held = dict(model.named_parameters(remove_duplicate=False))
    for ref, mixture in weights.items():
        for module, name in owners[held[ref.module_path]]:
            parametrize.register_parametrization(module, name, mixture)
            yield module, name


def _grid(weight: torch.Tensor, spec: QParamsSpec, folded: CapturedModel, ref: TensorRef) -> QParams:
    axis = weight_axis(folded.graph, ref) if spec.block_size is None else summed_axis(folded.graph, ref)
    return choose_weight_qparams(weight, replace(spec, observer="mse"), axis)
