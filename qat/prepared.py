"""Everything that is put into a model before it trains: of each region its plan, its calibration and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from bitwright.qat.batches import Arguments, joined
from bitwright.qat.call_sites import Tap
from bitwright.qat.methods import Method
from bitwright.qat.prepare import prepare
from bitwright.qat.quantizer import Quantizers
from bitwright.qat.regions import FloatPart, Found, TrainedRegion, find
from bitwright.qat.replay import Parts
from bitwright.qat.scheme import within
from bitwright.quant.calibrate import calibrate, split_batch
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.recording import run
from bitwright.quant.scheme import QuantScheme
from bitwright.quant.weights import weight_qparams

# Calls of a region that are kept to calibrate it, as where networks are quantized by regions after training.
_CALLS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What a callback puts into a model.

    Attributes:
        regions: what trains in low precision, with the plan of each, in the formats that were asked for.
        left_float: what does not, and why.
        parts: of all regions together.
        plan: likewise; of several regions names of operators begin with their path.
    """

    regions: tuple[tuple[TrainedRegion, QuantPlan], ...]
    left_float: tuple[FloatPart, ...]
    parts: Parts
    plan: QuantPlan

    @property
    def is_whole(self) -> bool:
        """Whether the model is one network."""
        return not self.regions[0][0].path

    def __str__(self) -> str:
        trained = ", ".join(region.path for region, _ in self.regions)
        return (
            "the model is not one graph; what trains in low precision are its regions "
            f"{trained}. In float stay:" + "".join(f"\n  {each}" for each in self.left_float)
        )


def prepare_model(
    model: nn.Module,
    scheme: QuantScheme,
    samples: Sequence[Arguments],
    examples: Sequence[Arguments],
    method: Method,
) -> Prepared:
    """Finds, plans and calibrates what can train in low precision; the model is not changed.

    Args:
        model: the user's, in float.
        scheme: what to quantize and how.
        samples: calibration batches.
        examples: single samples; the model is captured on the first, regions on what they are called with there.
        method: how scales are trained.

    Raises:
        InputError: nothing can be captured, or nothing of it is quantized or can be replayed.
    """
    found = find(model, examples)
    tap = Tap()
    if not found.regions[0].path:
        (region,) = found.regions
        decided, parts = _planned(model, region, scheme, samples, method, tap)
        return Prepared(regions=((region, decided),), left_float=(), parts=parts, plan=decided)
    return _prepared_regions(model, found, scheme, samples, method, tap)


def _prepared_regions(
    model: nn.Module, found: Found, scheme: QuantScheme, samples: Sequence[Arguments], method: Method, tap: Tap
) -> Prepared:
    calls = _calls(model, found.regions, samples)
    trained: list[tuple[TrainedRegion, QuantPlan]] = []
    prepared: list[Parts] = []
    floats = list(found.left_float)
    for region in found.regions:
        module = model.get_submodule(region.path)
        try:
            decided, parts = _planned(module, region, scheme, calls[region.path], method, tap)
        except InputError as error:
            floats.append(FloatPart(module_path=region.path, module_type=type(module).__name__, reason=str(error)))
            continue
        trained.append((region, decided))
        prepared.append(parts)
    if not trained:
        reasons = "".join(f"\n  {each}" for each in floats)
        raise InputError(f"the model is not one graph, and no region of it can train in low precision:{reasons}")
    return Prepared(
        regions=tuple(trained),
        left_float=tuple(floats),
        parts=_merged(prepared, tap),
        plan=_merged_plan(trained),
    )


def _planned(
    module: nn.Module,
    region: TrainedRegion,
    scheme: QuantScheme,
    batches: Sequence[Arguments],
    method: Method,
    tap: Tap,
) -> tuple[QuantPlan, Parts]:
    own = within(scheme, region.path)
    folded = fit_scheme(region.captured, own, trains_on=True)
    decided = replace(plan(folded.graph, own), scheme=scheme)
    if not decided.weights:
        reasons = sorted(set(decided.kept_float.values())) or ["it has none"]
        what = "this model" if not region.path else "it"
        raise InputError(f"scheme {scheme.name!r} quantizes no layer of {what}: {'; '.join(reasons)}")
    if region.path:
        batches = _fitting(folded, batches) or region.calls[:1]
    calibrated = calibrate(folded, decided, batches)
    parts = prepare(
        module,
        region.captured,
        folded,
        decided,
        {**calibrated.qparams, **weight_qparams(folded.graph, decided, calibrated.qparams)},
        region.calls[0],
        dynamic=calibrated.dynamic,
        method=method,
        tap=tap,
    )
    return decided, parts


def _calls(
    model: nn.Module, regions: Sequence[TrainedRegion], samples: Sequence[Arguments]
) -> Mapping[str, list[Arguments]]:
    """What the model calls its regions with on the samples."""
    kept: dict[str, list[Arguments]] = {region.path: [] for region in regions}

    def keeping(path: str) -> Any:
        def keep(_module: nn.Module, args: Arguments, kwargs: dict[str, Any]) -> None:
            if len(kept[path]) < _CALLS:
                copied, named = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
                kept[path].append(joined(copied, named))

        return keep

    handles = [model.get_submodule(path).register_forward_pre_hook(keeping(path), with_kwargs=True) for path in kept]
    try:
        for args in samples:
            run(model, args, {})
    finally:
        for handle in handles:
            handle.remove()
    return kept


def _fitting(folded: CapturedModel, calls: Sequence[Arguments]) -> list[Arguments]:
    """The calls that have the shapes of the capture, up to the batch."""
    return [call for call in calls if _fits(folded, call)]


def _fits(folded: CapturedModel, call: Arguments) -> bool:
    try:
        for args in split_batch(folded, call):
            folded.flatten(args, {})
    except InputError:
        return False
    return True


def _merged(prepared: Sequence[Parts], tap: Tap) -> Parts:
    quantizers = Quantizers()
    for parts in prepared:
        quantizers.by_tensor.update(dict(parts.quantizers.by_tensor.items()))
        quantizers.dynamic.update(dict(parts.quantizers.dynamic.items()))
    return Parts(
        layers=tuple(layer for parts in prepared for layer in parts.layers),
        sites=tuple(site for parts in prepared for site in parts.sites),
        operands=tuple(operand for parts in prepared for operand in parts.operands),
        written_out=tuple(each for parts in prepared for each in parts.written_out),
        entries=tuple(entry for parts in prepared for entry in parts.entries),
        by_ref={ref: each for parts in prepared for ref, each in parts.by_ref.items()},
        dynamic={ref: each for parts in prepared for ref, each in parts.dynamic.items()},
        quantizers=quantizers,
        tap=tap,
    )


def _merged_plan(trained: Sequence[tuple[TrainedRegion, QuantPlan]]) -> QuantPlan:
    plans = [(f"{region.path}!", decided) for region, decided in trained]
    return replace(
        plans[0][1],
        activations={ref: spec for _, each in plans for ref, spec in each.activations.items()},
        weights={ref: spec for _, each in plans for ref, spec in each.weights.items()},
        groups=tuple(group for _, each in plans for group in each.groups),
        biases={at + name: bias for at, each in plans for name, bias in each.biases.items()},
        fused=tuple(tuple(at + name for name in names) for at, each in plans for names in each.fused),
        quantized=frozenset(at + name for at, each in plans for name in each.quantized),
        kept_float={at + name: why for at, each in plans for name, why in each.kept_float.items()},
    )
