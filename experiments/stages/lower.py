"""Lowers the network as the target's own compiler would, and reckons what it takes there; nothing is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.experiments.record import Figure
from bitwright.experiments.results import LoweredLayer, LowerResult
from bitwright.experiments.stage import Context, Stage
from bitwright.hw_constraints.target_types import Capability
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.hw_constraints.cost.estimate import LatencyEstimate
    from bitwright.hw_constraints.lower.program import LoweredGraph


def lower_model(context: Context) -> LowerResult:
    """What cannot be lowered or reckoned is a reason, not a failure: no other stage waits for it."""
    from bitwright.experiments.scheme_settings import scheme_of
    from bitwright.hw_constraints.cost.estimate import estimate
    from bitwright.hw_constraints.lower.lowering import lower
    from bitwright.quant.capture import CaptureError, capture
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
    from bitwright.quant.plan import plan

    model, target = context.model(), context.bench.target
    try:
        target.require(Capability.LOWER)
        graph = fold_batch_norm(capture(model, context.bench.example(model))).graph
        lowered = lower(graph, target, plan=plan(graph, scheme_of(context.recipe, target)))
    except CaptureError:
        return LowerResult(reason="the network was not captured; the findings say why")
    except InputError as error:
        return LowerResult(reason=str(error))
    try:
        return _with_times(estimate(lowered))
    except InputError as error:
        return LowerResult(reason=str(error), peaks=_peaks(lowered), partitions=len(lowered.partitions))


def _with_times(reckoned: LatencyEstimate) -> LowerResult:
    lowered, source = reckoned.lowered, f"cost model {reckoned.model} of {reckoned.lowered.target.id}"
    if missing := len(reckoned.not_modelled):
        source += f"; a lower bound, {missing} of {len(reckoned.layers)} operations have no figure"
    layers = []
    for layer in reckoned.layers:
        block = lowered.by_name[layer.name].block
        layers.append(
            LoweredLayer(
                name=layer.name,
                operators=tuple(node.op for node in block.nodes) or (block.op,),
                module_path=block.module_path,
                source=str(block.source) if block.source else "",
                engine=layer.engine or block.place.value,
                us=layer.us,
                bound_by=layer.bound_by,
                macs=layer.macs,
                utilisation=layer.utilisation,
            )
        )
    return LowerResult(
        model=reckoned.model,
        latency=Figure(value=reckoned.us / 1e3, unit="ms", origin="modelled", source=source),
        peaks=_peaks(lowered),
        partitions=len(lowered.partitions),
        layers=tuple(layers),
        unverified=tuple(map(str, reckoned.unverified)),
        assumptions=reckoned.assumptions,
    )


def _peaks(lowered: LoweredGraph) -> dict[str, Figure]:
    source = f"memory plan for {lowered.target.id}"
    return {
        memory: Figure(value=size, unit="bytes", origin="modelled", source=source)
        for memory, size in lowered.memory.peak_bytes.items()
    }


STAGE = Stage(
    name="lower",
    run=lower_model,
    result=LowerResult,
    needs=("train",),
    reads=("model", "data", "example_inputs", "target", "calibrate", "quantize"),
    code=("bitwright.hw_constraints", "bitwright.quant"),
)
