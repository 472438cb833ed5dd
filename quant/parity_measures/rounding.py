"""How far two sound computations of one operator may lie apart: its format's rounding, by the terms it adds up.

A sum of `k` terms rounds `k` times, each time by `u` of what stands there, the format's unit roundoff. All in one
direction that is `gamma_k = k u / (1 - k u)` of the sum of magnitudes (Higham, *Accuracy and Stability of Numerical
Algorithms*, 2nd ed. 2002, section 3.1). Independent errors, uniform in `[-u, u]`, have the standard deviation
`u sqrt(k / 3)` (Higham and Mary, *A New Approach to Probabilistic Rounding Error Analysis*, 2019); the difference of
two computations has `sqrt(2)` times that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bitwright.quant.errors import unknown
from bitwright.quant.formats import FORMATS, FloatFormat
from bitwright.quant.graph import Graph, Node

# Values pass unchanged, or are compared.
_MOVES = frozenset(
    """
    abs adaptive_max_pool2d alias amax amin argmax argmin argsort as_strided broadcast_to cat ceil
    channel_shuffle chunk clamp clamp_max clamp_min clone constant_pad_nd contiguous copy detach diagonal
    dropout embedding eq expand expand_as feature_dropout flatten flip floor full_like gather ge gt hardtanh
    index index_put index_select isnan le lift_fresh_copy logical_and logical_not logical_or lt masked_fill max
    max_pool1d max_pool2d max_pool2d_with_indices max_pool3d maximum min minimum movedim narrow ne neg ones_like
    pad permute pixel_shuffle pixel_unshuffle reflection_pad2d relu relu6 repeat repeat_interleave
    replication_pad2d reshape roll round scatter select select_scatter sign slice slice_scatter sort split
    split_with_sizes squeeze stack t tile topk transpose tril triu trunc unbind unflatten unfold unsqueeze
    upsample_nearest1d upsample_nearest2d upsample_nearest3d view where zeros_like
    """.split()  # noqa: SIM905 - a list of a hundred strings is harder to read
)
# How many units in the last place a function may be off. No standard says it of Python's libraries, so it is what the
# OpenCL C specification 3.0 allows single precision (section 7.4, relative error as ULPs, full profile); of those made
# of several the sum: a sigmoid is an exponential, a sum and a quotient.
_ULPS = {
    "exp": 3.0, "log": 3.0, "log2": 3.0, "log10": 3.0, "log1p": 2.0, "expm1": 3.0, "sqrt": 3.0, "rsqrt": 2.0,
    "div": 2.5, "reciprocal": 2.5, "sin": 4.0, "cos": 4.0, "tan": 5.0, "atan": 5.0, "atan2": 6.0, "asin": 4.0,
    "acos": 4.0, "tanh": 5.0, "erf": 16.0, "pow": 16.0, "sigmoid": 6.5, "silu": 7.5, "gelu": 18.0, "softplus": 6.0,
    "elu": 3.0, "mish": 12.0, "hardswish": 4.0, "hardsigmoid": 3.5, "softmax": 6.5, "log_softmax": 7.0, "celu": 4.0,
    "selu": 5.0,
}  # fmt: skip
_SAMPLES = frozenset({"upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d"})
_GRIDS = frozenset({"grid_sampler", "grid_sampler_2d", "grid_sampler_3d"})


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How one operator rounds.

    Attributes:
        op: the operator.
        terms: what it adds up for an element of its result.
        ulps: how many units in the last place each step may be off; 0 where values only move.
        format: what it computes in.
    """

    op: str
    terms: int
    ulps: float
    format: str

    @property
    def expected(self) -> float:
        """The standard deviation of the relative difference of two computations, `ulps u sqrt(2 k / 3)`."""
        return self.ulps * unit_roundoff(self.format) * math.sqrt(2.0 * self.terms / 3.0)

    @property
    def worst(self) -> float:
        """What it cannot exceed, of the sum of magnitudes: `2 gamma_k` at `ulps` a step."""
        return (
            2.0 * gamma(math.ceil(self.terms * max(self.ulps, 1.0)), unit_roundoff(self.format)) if self.ulps else 0.0
        )

    def __str__(self) -> str:
        what = f"{self.op} of {self.terms} terms" if self.terms > 1 else self.op
        return f"{what} in {self.format}"


def unit_roundoff(name: str) -> float:
    """`2 ** -(p)` of a binary format with `p` significant bits: 2**-24 of float32.

    Raises:
        InputError: there is no such floating-point format.
    """
    found = FORMATS.get(name)
    if not isinstance(found, FloatFormat):
        raise unknown(
            "floating-point format", name, (n for n, each in FORMATS.items() if isinstance(each, FloatFormat))
        )
    return float(2.0 ** -(found.mantissa_bits + 1))


def gamma(terms: int, roundoff: float) -> float:
    """`k u / (1 - k u)`; infinite where the format cannot tell `k` terms apart."""
    product = terms * roundoff
    return product / (1.0 - product) if product < 1.0 else math.inf


def rounding_of(graph: Graph, node: Node, arithmetic: str = "") -> Rounding:
    """How a node rounds.

    Args:
        graph: where it stands; shapes static.
        node: the operator.
        arithmetic: what layers compute in, in place of their results' own type (`tf32`, `float16`).
    """
    info = graph.tensors[node.outputs[0]] if node.outputs else None
    if info is None or not info.is_floating or node.op in _MOVES:
        return Rounding(op=node.op, terms=1, ulps=0.0, format="float32")
    fmt = arithmetic if arithmetic and graph.is_layer(node) else info.dtype
    return Rounding(op=node.op, terms=terms(graph, node), ulps=_ulps(graph, node), format=_known(fmt))


def terms(graph: Graph, node: Node) -> int:
    """What is added up for one element of a node's result, the bias included."""
    sizes = [graph.tensors[ref].elements for ref in node.tensors if None not in graph.tensors[ref].shape]
    made = sum(graph.tensors[ref].elements for ref in node.outputs if None not in graph.tensors[ref].shape)
    if graph.is_layer(node):
        products = graph.macs(node) // max(1, graph.tensors[node.outputs[0]].elements)
        return max(1, products) + int(len(node.tensors) > 2)
    if node.op in ("softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp"):
        axis, shape = node.attributes.get("dim", -1), graph.tensors[node.outputs[0]].shape
        return int(shape[axis] or 1) if shape else 1
    if node.op in ("layer_norm", "rms_norm"):
        return math.prod(node.attributes.get("normalized_shape", ())) or 1
    if node.op in ("group_norm", "instance_norm"):
        batch, channels = (graph.tensors[node.tensors[0]].shape[i] or 1 for i in (0, 1))
        return max(1, sizes[0] // (batch * (int(node.attributes.get("num_groups", channels)) or 1)))
    if node.op in ("lstm", "gru", "rnn_tanh", "rnn_relu"):  # each step adds what comes in and what was remembered
        return sum(int(graph.tensors[ref].shape[-1] or 1) for ref in node.tensors if graph.is_constant(ref))
    # Whatever else reduces: as many terms as elements go in for each that comes out.
    return max(1, max(sizes, default=1) // max(1, made))


def ulps_of(op: str) -> float:
    """How many units in the last place one step of an operator may be off; 1 for additions and products."""
    return _ULPS.get(op, 1.0)


def _ulps(graph: Graph, node: Node) -> float:
    """Interpolation rounds coordinates: `u L` pixels, times twice the largest value as the difference of neighbours."""
    if node.op in _SAMPLES or node.op in _GRIDS:
        spatial = graph.tensors[node.tensors[0]].shape[2:]
        return 2.0 * max((size or 1 for size in spatial), default=1)
    if node.op == "batch_norm":
        return 6.0  # a difference, a sum, a square root, a quotient, a product and a sum
    return ulps_of(node.op)


def _known(fmt: str) -> str:
    return fmt if isinstance(FORMATS.get(fmt), FloatFormat) else "float32"
