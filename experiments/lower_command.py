"""What `bitwright lower` does: a network from an entry, a recipe or an ONNX file, lowered and reckoned for a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bitwright.hw_constraints.cost.estimate import LatencyEstimate, estimate
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.lower.program import LoweredGraph
from bitwright.hw_constraints.target import Capability, load_target
from bitwright.quant.broken_weights import broken_weights
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """The result.

    Attributes:
        program: what would run.
        cost: what it takes; None where the target serves no cost.
        no_cost: why not, naming the figures that are not public.
    """

    program: LoweredGraph
    cost: LatencyEstimate | None
    no_cost: str = ""

    def to_json(self) -> dict[str, Any]:
        """The estimate with its layers; without one the program alone, and why there is none."""
        if self.cost is not None:
            return self.cost.to_json()
        memory = self.program.memory
        return {
            "target": self.program.target.id,
            "no_cost": self.no_cost,
            "peak_bytes": dict(memory.peak_bytes),
            "constant_bytes": dict(memory.constant_bytes),
            "layers": [
                {
                    "name": op.name,
                    "operators": [node.op for node in op.block.nodes] or [op.block.op],
                    "module": op.block.module_path,
                    "source": str(op.block.source) if op.block.source else None,
                    "writes": [str(ref) for ref in op.block.writes],
                    "engine": op.block.engine,
                    "partition": op.block.partition,
                    "tiles": op.tiling.tiles if op.tiling else None,
                    "traffic": {name: {"read": t.read, "written": t.written} for name, t in op.traffic.items()},
                    "reasons": [str(reason) for reason in op.reasons],
                }
                for op in self.program.ops
            ],
        }


def lower_model(model: str, target_name: str | None, inputs: Sequence[str]) -> Lowered:
    """Captures or reads a network and lowers it.

    Args:
        model: an entry, a recipe, or an ONNX file.
        target_name: a target; a recipe's own when not given.
        inputs: shapes of an entry's example inputs, as `1x3x224x224` or `1x20:int64`.

    Raises:
        InputError: no such network, target or shape; a target that cannot be lowered for.
    """
    targets = [target_name] if target_name else []
    if target_name:
        load_target(target_name).require(Capability.LOWER)  # before the network takes seconds
    graph, plan, name = _read(model, targets, inputs)
    broken = next(broken_weights(graph), None)
    if broken is not None:
        raise InputError(f"{model}: {broken.why} ({broken.node.op}); `bitwright lint` lists every such tensor")
    program = lower(graph, load_target(name), plan=plan)
    if Capability.COST in program.target.capabilities:
        return Lowered(program=program, cost=estimate(program))
    try:
        program.target.require(Capability.COST)
    except InputError as error:
        return Lowered(program=program, cost=None, no_cost=str(error))
    raise AssertionError("require() takes what the capabilities list")


def _read(model: str, targets: Sequence[str], inputs: Sequence[str]) -> tuple[Graph, QuantPlan | None, str]:
    if model.endswith(".onnx"):
        from bitwright.quant.onnx_import import graph_from_onnx

        if not targets:
            raise InputError("--target is missing; see `bitwright targets`")
        if inputs:
            raise InputError(f"--input = {inputs[0]!r}; an ONNX file has the shapes of its inputs: leave it out")
        imported = graph_from_onnx(model)
        return imported.graph, imported.plan_by(load_target(targets[0]).scheme()), targets[0]
    from bitwright.experiments.lint_command import network_of
    from bitwright.quant.capture import CaptureError, capture
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

    network, example, names = network_of(model, targets, inputs)
    try:
        captured = capture(network, example)
    except CaptureError as error:
        raise InputError(f"{error}\n  lower its regions one by one: bitwright regions {model}") from error
    return fold_batch_norm(captured).graph, None, names[0]
