"""The loop nests of a network's layers, as the lowering sees them."""

from __future__ import annotations

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.float_networks import example_inputs, float_network
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.lower.work import Work
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.capture import capture
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm


def layers_of(bench: Bench, network: str, target: Target) -> list[Work]:
    """What multiplies, in order; batch norms folded."""
    captured = fold_batch_norm(capture(float_network(network, bench.home), example_inputs()))
    works = [op.work for op in lower(captured.graph, target).ops]
    return [work for work in works if work is not None and work.macs]
