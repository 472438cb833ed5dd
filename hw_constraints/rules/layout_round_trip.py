"""Two transposes that undo each other, with nothing between them that needs the other layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.quant.graph import Graph, Node

# Position by position, so that the layout is all the same to them; with one computed operand.
_POINTWISE = frozenset(
    {
        *("relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "sigmoid", "tanh", "leaky_relu", "elu"),
        *("mish", "softplus", "neg", "abs", "exp", "sqrt", "square", "to", "dropout"),
    }
)
_ROWS = 3  # dimensions of [N, tokens, channels]
_PERMUTATIONS = frozenset({"permute", "transpose", "t", "movedim", "swapaxes"})


class LayoutRoundTrip:
    """Follows each transpose through operators with one reader to the transpose that takes it back.

    A transpose computes nothing and moves every byte of the tensor, on many accelerators on their host. A pair is
    superfluous around operators that work position by position, and around a linear layer on the channels, which is a
    1x1 convolution. It is only mentioned around a layer norm over the channels, which not every toolchain has in the
    other layout, and around a linear layer that mixes tokens, `x.mT` to `x.mT`, which is a 1x1 convolution as well: not
    everywhere does that save a move. What attention modules do inside is left alone.
    """

    name: ClassVar[str] = "layout_round_trip"
    summary: ClassVar[str] = "two transposes that undo each other"
    bad: ClassVar[str] = "x = self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)"
    good: ClassVar[str] = "x = self.mlp(x)  # nn.Conv2d(c, c, 1) in place of nn.Linear(c, c)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each pair, at the second transpose."""
        for graph, node in context.computed_nodes():
            dims = _permutation(graph, node)
            if dims is None or node.module_type == "MultiheadAttention":
                continue
            between, back = _way_back(graph, node, dims)
            if back is None:
                continue
            line = f" of line {node.source.line}" if node.source else ""
            # Where channels lie last in memory, rows have to be turned for the convolution as well.
            mentioned = "layer_norm" in between or ("linear" in between and len(dims) == _ROWS)
            yield finding_at(
                self.name,
                back,
                severity=Severity.INFO if mentioned else Severity.WARNING,
                found=f"{back.op} undoes the {node.op}{line}; between them: {', '.join(between) or 'nothing'}",
                allowed="one layout from layer to layer",
                suggestion=_suggestion(between),
            )


def _suggestion(between: tuple[str, ...]) -> str:
    if "layer_norm" in between:
        return "a norm over the channels that keeps the layout, or batch_norm, which folds into the layer before it"
    if "linear" in between:
        return "a convolution with a 1x1 kernel and the same weights, without the transposes"
    return "leave both transposes out"


def _way_back(graph: Graph, start: Node, dims: tuple[int, ...]) -> tuple[tuple[str, ...], Node | None]:
    """The operators up to the transpose that undoes `start`, and that transpose; None where there is none."""
    between: list[str] = []
    node = start
    while True:
        follower = graph.sole_consumer(node.outputs[0])
        if follower is None or follower.module_type == "MultiheadAttention":
            return (), None
        other = _permutation(graph, follower)
        if other is not None:
            undone = tuple(dims[axis] for axis in other) == tuple(range(len(dims)))
            return tuple(between), follower if undone else None
        computed = [ref for ref in follower.tensors if not graph.is_constant(ref)]
        if len(computed) != 1 or not _fits(graph, follower, dims):
            return (), None
        between.append(follower.op)
        node = follower


def _fits(graph: Graph, node: Node, dims: tuple[int, ...]) -> bool:
    """Whether the operator could as well work in the layout before the transpose."""
    channels_last = len(dims) > 2 and dims[-1] == 1 and sorted(dims[:-1]) == list(dims[:-1])
    if node.op == "linear":
        return channels_last and len(dims) in (3, 4)
    if node.op == "layer_norm":
        return channels_last and len(node.attributes.get("normalized_shape", ())) == 1
    scalar = node.op in ("add", "sub", "mul", "div") and all(
        not graph.tensors[ref].shape for ref in node.tensors if graph.is_constant(ref)
    )
    return scalar or node.op in _POINTWISE


def _permutation(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """Which axis of the operand each axis of the result is; None for other operators, and where nothing moves."""
    if node.op not in _PERMUTATIONS or not node.tensors:
        return None
    shape = graph.tensors[node.tensors[0]].shape
    rank = len(shape)
    dims = list(range(rank))
    given = node.attributes
    if node.op == "permute":
        dims = [axis % rank for axis in given["dims"]]
    elif node.op == "t":
        dims.reverse()
    else:
        first, second = given.get("dim0", given.get("axis0")), given.get("dim1", given.get("axis1"))
        if not isinstance(first, int) or not isinstance(second, int):
            return None
        dims[first % rank], dims[second % rank] = dims[second % rank], dims[first % rank]
    moved = [axis for axis in dims if shape[axis] != 1]
    return tuple(dims) if moved != sorted(moved) else None


RULE = LayoutRoundTrip
