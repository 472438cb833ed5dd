"""An operator that the accelerator does not run, or runs outside its fast path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.operators import MOVEMENTS, MULTIPLICATIONS, OPERATORS
from bitwright.hw_constraints.target_types import Otherwise, Target
from bitwright.quant.graph import Graph, Node

# They multiply and accumulate, too, though no layer of the plan's.
_PRODUCTS = MULTIPLICATIONS | {
    *("einsum", "cdist", "deform_conv2d", "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"),
}
# What else computes the same or nearly so: (operators that the target must have, what to write).
_INSTEAD: dict[str, tuple[tuple[frozenset[str], str], ...]] = {
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        (
            (frozenset({"upsample_nearest2d", "conv2d"}), "upsample with nearest neighbours, then conv2d"),
            (frozenset({"pixel_shuffle", "conv2d"}), "conv2d with more channels, then pixel_shuffle"),
        ),
    ),
    "conv3d": ((frozenset({"conv2d"}), "fold depth into the batch or the channels and use conv2d"),),
    "silu": (
        (frozenset({"hardswish"}), "hardswish, and train a little further"),
        (frozenset({"sigmoid", "mul"}), "x * torch.sigmoid(x)"),
        (frozenset({"leaky_relu"}), "leaky_relu or ReLU, and train a little further"),
    ),
    "leaky_relu": ((frozenset({"relu"}), "ReLU, and train a little further"),),
    "gelu": ((frozenset({"hardswish"}), "hardswish, and train a little further"),),
    "mish": ((frozenset({"hardswish"}), "hardswish, and train a little further"),),
    "hardswish": ((frozenset({"mul", "hardtanh"}), "x * F.relu6(x + 3) / 6"),),
    "layer_norm": ((frozenset({"conv2d"}), "batch_norm, which folds into the layer before it"),),
    "group_norm": ((frozenset({"conv2d"}), "batch_norm, which folds into the layer before it"),),
    "scaled_dot_product_attention": (
        (frozenset({"matmul", "softmax"}), "q @ k.transpose(-2, -1), softmax and @ v, written out"),
    ),
    **dict.fromkeys(
        ("inverse", "linalg_inv", "linalg_inv_ex"),
        ((frozenset(), "the inverse in closed form ([R|t] has [R.T|-R.T t]), or pass it in as an input"),),
    ),
    "mean": ((frozenset({"adaptive_avg_pool2d"}), "adaptive_avg_pool2d(x, 1), where it is over height and width"),),
    "einsum": ((frozenset({"matmul"}), "matmul, with the operands' axes permuted before it"),),
    "gru_cell": ((frozenset({"linear", "sigmoid", "tanh", "mul"}), "its gates as linear layers, written out"),),
    "lstm_cell": ((frozenset({"linear", "sigmoid", "tanh", "mul"}), "its gates as linear layers, written out"),),
    "upsample_bilinear2d": ((frozenset({"upsample_nearest2d"}), "nearest neighbours"),),
}


class OperatorSupport:
    """Speaks about operators outside the target's lists and outside the chains that it fuses."""

    name: ClassVar[str] = "operator_support"
    summary: ClassVar[str] = "an operator that the accelerator does not run, or not in low precision"
    bad: ClassVar[str] = "pose = torch.linalg.inv(pose)"
    good: ClassVar[str] = "rotation = pose[:, :3, :3].transpose(1, 2)  # [R|t] has the inverse [R.T|-R.T t]"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such call."""
        target = context.target
        listed = target.operators.quantized | target.operators.shared_qparams | target.operators.decomposed.keys()
        runs_others = target.operators.others is Otherwise.FLOAT
        available = (listed | OPERATORS if runs_others else listed) - target.operators.refused
        for graph, node in context.computed_nodes():
            if node.op in listed or context.is_fused(node) or _moves_on_the_host(context, graph, node):
                continue
            verdict = _verdict(graph, node, target)
            if verdict:
                severity, consequence = verdict
                yield finding_at(
                    self.name,
                    node,
                    severity=severity,
                    found=f"{node.op}: {consequence}",
                    allowed=f"operators that {target.id} runs (bitwright targets {target.id})",
                    suggestion=_suggestion(node.op, available, runs=severity is Severity.WARNING),
                )


def _moves_on_the_host(context: LintContext, graph: Graph, node: Node) -> bool:
    """Whether it only moves what the host has anyway: then the accelerator need not know it."""
    makers = [maker for ref in node.tensors if (maker := graph.producers.get(ref))]
    return node.op in MOVEMENTS and bool(makers) and all(map(context.is_hosted, makers))


def _verdict(graph: Graph, node: Node, target: Target) -> tuple[Severity, str] | None:
    """How bad it is and what happens; None when it runs well enough."""
    otherwise = Otherwise.REFUSED if node.op in target.operators.refused else target.operators.others
    if otherwise is Otherwise.REFUSED:
        return Severity.ERROR, f"the toolchain of {target.id} has no such operator"
    on_real_numbers = any(graph.tensors[ref].is_floating for ref in (*node.tensors, *node.outputs))
    if otherwise is Otherwise.HOST and on_real_numbers:
        return Severity.ERROR, "runs on the processor beside the accelerator"
    if otherwise is Otherwise.FLOAT and node.op in _PRODUCTS:
        return Severity.WARNING, "runs in floating point while its neighbours run in low precision"
    return None


def _suggestion(op: str, available: frozenset[str], *, runs: bool) -> str:
    for needed, text in _INSTEAD.get(op, ()):
        if needed <= available:
            return text
    if runs:
        return "leave it in float where it takes little of the time; or a target that has it in low precision"
    return "leave it out of the exported part: do it before the network's inputs or after its outputs"


RULE = OperatorSupport
