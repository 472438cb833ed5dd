"""Groups of weights that do not come out even: a shorter last one is left to the runtimes that take it."""

from __future__ import annotations

from collections.abc import Iterator

from bitwright.hw_constraints.target import Target
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import described
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.graph import Graph
from bitwright.quant.operand_axes import summed_axis
from bitwright.quant.plan import plan
from bitwright.quant.scheme import QuantScheme

# ONNX lets the last block be shorter (DequantizeLinear-21: any size in [ceil(D / S), ceil(D / (S - 1)) - 1]), and ONNX
# Runtime computes it. OpenVINO 2026.4 refuses such a file; TensorRT divides the extent by the block (its Quantize
# layer, "Shape Information").
TAKES_SHORTER = frozenset({"onnxruntime"})


def require_whole_groups(captured: CapturedModel, scheme: QuantScheme, target: Target) -> None:
    """Refuses groups with a remainder where a runtime of the target takes whole ones only.

    Args:
        captured: the network in float.
        scheme: the formats; nothing is done where none of them has blocks.
        target: whose `artifact.runtimes` will read the file.

    Raises:
        InputError: there are such weights; names the first, its axis and the runtimes.
    """
    specs = [scheme.weights, *scheme.operator_weights.values(), *(each.weights for each in scheme.overrides)]
    refusing = [name for name in target.artifact.runtimes if name not in TAKES_SHORTER]
    if not refusing or all(each is None or each.block_size is None for each in specs):
        return
    graph = fit_scheme(captured, scheme).graph
    found = list(_with_a_remainder(graph, scheme))
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise InputError(
            f"{found[0]}{more}: the last group would be shorter, which {' and '.join(refusing)} of target "
            f"{target.id!r} cannot run; take another block_size, or keep the layer in float by an override"
        )


def _with_a_remainder(graph: Graph, scheme: QuantScheme) -> Iterator[str]:
    for ref, spec in plan(graph, scheme).weights.items():
        axis, shape = summed_axis(graph, ref), graph.tensors[ref].shape
        if spec.block_size is None or axis is None or len(shape) < 2:
            continue
        if (shape[axis] or 0) % spec.block_size:
            where = f"axis {axis} of {list(shape)}"
            yield f"{described(graph, ref)}: block_size = {spec.block_size} does not divide {where}"
