"""A lowered program, run tile by tile in its arenas, gives the codes of the network run as a whole."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from network_reference import Reference
from programs import Random, both, with_sram

from bitwright.hw_constraints.lower.interpret import interpret
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.quantity import Dimension, Quantity
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph

# Ethos-U: NHWC, direct; DPU: 12 groups of channels; DLA: NC/32HW32.
TARGETS = ("ethos-u85-1024", "amd-dpu", "orin-dla")


def assert_equal(graph: Graph, name: str, sram: int, **options: Any) -> int:
    """Compares, and says how many tiles the program has."""
    lowered, got, wanted = both(graph, with_sram(name, sram), Reference, **options)
    for ref in wanted:
        np.testing.assert_array_equal(got[ref], wanted[ref])
    return sum(op.tiling.tiles for op in lowered.ops if op.tiling)


@st.composite
def convolutions(draw: st.DrawFn) -> Graph:
    net = GraphBuilder()
    depthwise = draw(st.booleans())
    groups = draw(st.sampled_from([1, 2])) if not depthwise else draw(st.integers(2, 20))
    inputs = groups if depthwise else groups * draw(st.integers(1, 9))
    outputs = groups * draw(st.integers(1, 3 if depthwise else 20))
    kernel, stride = draw(st.sampled_from([(1, 1), (3, 3), (5, 2), (2, 3)])), draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 2))
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    size = (draw(st.integers(10, 19)), draw(st.integers(10, 19)))
    result = tuple(
        (n + 2 * p - dilation * (k - 1) - 1) // stride + 1 for n, p, k in zip(size, padding, kernel, strict=True)
    )
    x = net.input(draw(st.integers(1, 2)), inputs, *size)
    weight = net.parameter(outputs, inputs // groups, *kernel)
    bias = net.parameter(outputs) if draw(st.booleans()) else None
    batch = net.tensors[x].shape[0]
    arguments = {"stride": (stride, stride), "padding": padding, "dilation": (dilation,) * 2, "groups": groups}
    y = net.call("conv2d", x, weight, bias, shape=(batch, outputs, *result), **arguments)
    if draw(st.booleans()):
        y = net.call("relu", y, shape=(batch, outputs, *result))
    return net.graph(y)


@given(graph=convolutions(), name=st.sampled_from(TARGETS), sram=st.integers(1500, 60_000))
def test_convolution(graph: Graph, name: str, sram: int) -> None:
    assert_equal(graph, name, sram)


@given(
    op=st.sampled_from(["max_pool2d", "avg_pool2d"]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padded=st.booleans(),
    channels=st.integers(1, 40),
    size=st.tuples(st.integers(5, 20), st.integers(5, 20)),
    sram=st.integers(1000, 30_000),
)
def test_pool(op: str, kernel: int, stride: int, padded: bool, channels: int, size: tuple[int, int], sram: int) -> None:
    net = GraphBuilder()
    x = net.input(1, channels, *size)
    pad = kernel // 2 if padded else 0
    result = tuple((n + 2 * pad - kernel) // stride + 1 for n in size)
    arguments = {"kernel_size": (kernel, kernel), "stride": (stride, stride), "padding": (pad, pad)}
    if op == "avg_pool2d":
        arguments |= {"count_include_pad": True, "ceil_mode": False}
    assert_equal(net.graph(net.call(op, x, shape=(1, channels, *result), **arguments)), "ethos-u85-1024", sram)


@given(
    rows=st.integers(1, 40), depth=st.integers(1, 70), columns=st.integers(1, 60), heads=st.integers(1, 3),
    kind=st.sampled_from(["linear", "matmul", "addmm"]), sram=st.integers(800, 20_000),
)  # fmt: skip
def test_products(rows: int, depth: int, columns: int, heads: int, kind: str, sram: int) -> None:
    net = GraphBuilder()
    if kind == "linear":
        x, w, b = net.input(heads, rows, depth), net.parameter(columns, depth), net.parameter(columns)
        y = net.call("linear", x, w, b, shape=(heads, rows, columns))
    elif kind == "matmul":
        x, w = net.input(1, heads, rows, depth), net.input(1, heads, depth, columns)
        y = net.call("matmul", x, w, shape=(1, heads, rows, columns))
    else:
        x, w, b = net.input(rows, depth), net.parameter(depth, columns), net.parameter(columns)
        y = net.call("addmm", b, x, w, shape=(rows, columns), alpha=1, beta=1)
    assert_equal(net.graph(y), "ethos-u85-1024", sram)


@given(
    op=st.sampled_from(["softmax", "mean", "amax"]), axis=st.integers(0, 2),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)), sram=st.integers(200, 3000),
)  # fmt: skip
def test_reductions(op: str, axis: int, shape: tuple[int, ...], sram: int) -> None:
    net = GraphBuilder()
    kept = tuple(1 if i == axis else n for i, n in enumerate(shape))
    x = net.input(*shape)
    arguments = {"dim": axis} if op == "softmax" else {"dim": (axis,), "keepdim": True}
    y = net.call(op, x, shape=shape if op == "softmax" else kept, **arguments)
    assert_equal(net.graph(y), "ethos-u85-1024", sram)


def residual_network(size: int = 20) -> Graph:
    """Convolutions, a skip, a concatenation, an upsampling, a pool and a classifier."""
    net = GraphBuilder()
    x = net.input(1, 3, size, size)
    stem = net.call("relu", net.conv2d(x, 12), shape=(1, 12, size, size))
    a = net.conv2d(stem, 12, groups=12)
    b = net.call("add", net.conv2d(a, 12, 1), stem, shape=(1, 12, size, size), alpha=1)
    down = net.conv2d(b, 20, stride=2)
    half = (size + 1) // 2
    up = net.call(
        "upsample_nearest2d", down, shape=(1, 20, 2 * half, 2 * half), output_size=None, scale_factors=(2.0, 2.0)
    )
    joined = net.call("cat", up, b, shape=(1, 32, size, size), dim=1)
    mixed = net.call("sigmoid", net.conv2d(joined, 8, 1), shape=(1, 8, size, size))
    pooled = net.call("adaptive_avg_pool2d", mixed, shape=(1, 8, 1, 1), output_size=(1, 1))
    flat = net.call("flatten", pooled, shape=(1, 8), start_dim=1, end_dim=-1)
    return net.graph(net.call("linear", flat, net.parameter(5, 8), net.parameter(5), shape=(1, 5)), down)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("sram", [2_500, 6_000, 20_000, 1 << 20])
def test_network_that_spills_and_one_that_does_not(name: str, sram: int) -> None:
    assert assert_equal(residual_network(), name, sram) >= (30 if sram < 3000 else 8)


def attention_block() -> Graph:
    """Tokens from an image, attention written as one operator, a feed-forward layer."""
    net = GraphBuilder()
    image = net.conv2d(net.input(1, 3, 8, 8), 16, 1)
    flat = net.call("flatten", image, shape=(1, 16, 64), start_dim=2, end_dim=-1)
    tokens = net.call("transpose", flat, shape=(1, 64, 16), dim0=1, dim1=2)
    heads = []
    for _ in range(3):
        projected = net.call("linear", tokens, net.parameter(16, 16), net.parameter(16), shape=(1, 64, 16))
        apart = net.call("view", projected, shape=(1, 64, 2, 8), size=(1, 64, 2, 8))
        heads.append(net.call("transpose", apart, shape=(1, 2, 64, 8), dim0=1, dim1=2))
    mixed = net.call("scaled_dot_product_attention", *heads, None, shape=(1, 2, 64, 8), is_causal=False, scale=None)
    turned = net.call("transpose", mixed, shape=(1, 64, 2, 8), dim0=1, dim1=2)
    rows = net.call("reshape", turned, shape=(1, 64, 16), shape_=(1, 64, 16))
    normal = net.call(
        "layer_norm", rows, net.parameter(16), net.parameter(16), shape=(1, 64, 16), normalized_shape=(16,)
    )
    gated = net.call("gelu", normal, shape=(1, 64, 16))
    return net.graph(net.call("softmax", gated, shape=(1, 64, 16), dim=2))


@pytest.mark.parametrize("sram", [3_000, 30_000, 1 << 20])
def test_attention(sram: int) -> None:
    assert_equal(attention_block(), "ethos-u85-1024", sram)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> Graph:
    net, rank = GraphBuilder(), draw(st.sampled_from([1, 2, 2]))
    groups = draw(st.sampled_from([1, 2, 3]))
    inputs, outputs = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 7))
    kernel = [draw(st.integers(1, 5)) for _ in range(rank)]
    stride = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilation = draw(st.sampled_from([1, 1, 1, 2]))
    padding = [draw(st.integers(0, dilation * (k - 1))) for k in kernel]
    more = [draw(st.integers(0, max(s, dilation) - 1)) for s in stride]
    size = [draw(st.integers(3, 9)) for _ in range(rank)]
    result = [
        (n - 1) * s - 2 * p + dilation * (k - 1) + o + 1
        for n, s, p, k, o in zip(size, stride, padding, kernel, more, strict=True)
    ]
    assume(min(result) > 0)
    weight = net.parameter(inputs, outputs // groups, *kernel)
    bias = net.parameter(outputs) if draw(st.booleans()) else None
    arguments = {"stride": stride, "padding": padding, "output_padding": more, "groups": groups}
    batch = draw(st.integers(1, 2))
    x = net.input(batch, inputs, *size)
    shape = (batch, outputs, *result)
    y = net.call(f"conv_transpose{rank}d", x, weight, bias, shape=shape, **arguments, dilation=[dilation] * rank)
    return net.graph(net.call("relu", y, shape=shape) if draw(st.booleans()) else y)


@given(
    graph=transposed_convolutions(), name=st.sampled_from(TARGETS), sram=st.integers(1500, 30_000),
    zero_points=st.booleans(),
)  # fmt: skip
def test_transposed_convolution(graph: Graph, name: str, sram: int, zero_points: bool) -> None:
    assert_equal(graph, name, sram, zero_points=zero_points)


def test_transposed_convolution_runs_in_tiles() -> None:
    net = GraphBuilder()
    arguments = {"stride": (2, 2), "padding": (1, 1), "output_padding": (0, 0), "groups": 1, "dilation": (1, 1)}
    weight, bias = net.parameter(16, 12, 4, 4), net.parameter(12)
    y = net.call("conv_transpose2d", net.input(1, 16, 12, 12), weight, bias, shape=(1, 12, 24, 24), **arguments)
    assert assert_equal(net.graph(y), "ethos-u85-1024", 3_000) > 10


INDICES = {
    "index_select": ((3,), {"dim": 1}, (1, 3, 4, 6)),
    "gather": ((1, 5, 2, 6), {"dim": 2}, (1, 5, 2, 6)),
    "index": ((2, 3), {}, (1, 5, 2, 3, 6)),  # x[:, :, index]
    "scatter": ((1, 5, 2, 6), {"dim": 2}, (1, 5, 4, 6)),
}


@pytest.mark.parametrize("sram", [400, 1 << 20])
@pytest.mark.parametrize("op", INDICES)
def test_indices_are_places_and_no_values(op: str, sram: int) -> None:
    shape, attributes, result = INDICES[op]
    net = GraphBuilder()
    x = net.call("relu", net.input(1, 5, 4, 6), shape=(1, 5, 4, 6))
    index = net.parameter(*shape, dtype="int64")
    # Where several elements of a scatter go to one place, which of them stays is not defined: here none do.
    places = np.broadcast_to(np.arange(2)[None, None, :, None] * 3, shape) if op == "scatter" else None
    known = {index: np.random.default_rng(0).integers(0, 4, shape) if places is None else places.copy()}
    operands = [x, None, None, index] if op == "index" else [x, index]
    if op == "scatter":
        operands.append(net.input(*shape))
    y = net.call(op, *operands, shape=result, **attributes)
    assert_equal(net.graph(net.call("relu", y, shape=result)), "ethos-u85-1024", sram, known=known)


def test_an_embedding_reads_rows_of_its_table() -> None:
    net = GraphBuilder()
    table, tokens = net.parameter(11, 6), net.parameter(2, 4, dtype="int64")
    x = net.input(2, 4, 6)
    y = net.call("add", x, net.call("embedding", table, tokens, shape=(2, 4, 6)), shape=(2, 4, 6), alpha=1)
    known = {tokens: np.array([[0, 10, 3, 3], [7, 1, 0, 9]])}
    assert_equal(net.graph(y), "ethos-u85-1024", 1 << 20, known=known)


MOVES = {
    "flip": ({"dims": (1, 3)}, (1, 4, 6, 6)),
    "roll": ({"shifts": (1, -2), "dims": (1, 2)}, (1, 4, 6, 6)),
    "repeat": ({"repeats": (1, 2, 1, 3)}, (1, 8, 6, 18)),
    "pixel_shuffle": ({"upscale_factor": 2}, (1, 1, 12, 12)),
    "pixel_unshuffle": ({"downscale_factor": 3}, (1, 36, 2, 2)),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("op", MOVES)
def test_moves(op: str, name: str) -> None:
    attributes, shape = MOVES[op]
    net = GraphBuilder()
    x = net.conv2d(net.input(1, 3, 6, 6), 4)
    assert_equal(net.graph(net.call(op, x, shape=shape, **attributes)), name, 1 << 20)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)), result=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    corners=st.booleans(), sram=st.sampled_from([900, 1 << 20]),
)  # fmt: skip
def test_bilinear_resizing(size: tuple[int, int], result: tuple[int, int], corners: bool, sram: int) -> None:
    net = GraphBuilder()
    x = net.conv2d(net.input(1, 3, *size), 5, 1)
    arguments = {"output_size": result, "align_corners": corners, "scale_factors": None}
    y = net.call("upsample_bilinear2d", x, shape=(1, 5, *result), **arguments)
    assert_equal(net.graph(net.conv2d(y, 4, 1)), "ethos-u85-1024", sram)


@given(
    size=st.tuples(st.integers(3, 17), st.integers(3, 17)), result=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    sram=st.sampled_from([900, 1 << 20]),
)  # fmt: skip
def test_adaptive_pools_with_windows_of_unlike_sizes(size: tuple[int, int], result: tuple[int, int], sram: int) -> None:
    net = GraphBuilder()
    x = net.conv2d(net.input(1, 3, *size), 5, 1)
    y = net.call("adaptive_avg_pool2d", x, shape=(1, 5, *result), output_size=result)
    assert_equal(net.graph(y), "ethos-u85-1024", sram)


@given(graph=convolutions(), name=st.sampled_from(TARGETS), sram=st.integers(1500, 60_000))
def test_convolutions_whose_codes_of_zero_are_not_0(graph: Graph, name: str, sram: int) -> None:
    assert_equal(graph, name, sram, zero_points=True)


@pytest.mark.parametrize("sram", [2_500, 6_000, 1 << 20])
def test_networks_whose_codes_of_zero_are_not_0(sram: int) -> None:
    """Padding is a real 0, so it is the code of zero, in convolutions, pools and pads alike."""
    for graph in (residual_network(), attention_block()):
        assert_equal(graph, "ethos-u85-1024", sram, zero_points=True)


def _results(lowered, random, scales):  # type: ignore[no-untyped-def]
    return interpret(lowered, random.inputs(), random, scales)


def test_every_overlap_shows() -> None:
    """Two tensors that live together are put at the same place, pair by pair: each time the codes change."""
    lowered = lower(residual_network(), with_sram("ethos-u85-1024", 1 << 20))
    random = Random(lowered)
    whole = Reference(lowered.program, random)
    wanted = whole.run(random.inputs())
    memory = lowered.memory
    roots = {ref: each for ref, each in memory.tensors.items() if ref not in lowered.program.views}
    tried = 0
    for one, (first, _) in roots.items():
        for other, (second, storage) in roots.items():
            together = first.first < second.first <= first.last - 1 and first.memory == second.memory == "sram"
            if one == other or not together or first.offset + second.bytes > memory.peak_bytes["sram"]:
                continue
            moved = {**memory.tensors, other: (replace(second, offset=first.offset), storage)}
            broken = replace(lowered, memory=replace(memory, tensors=moved))
            results = _results(broken, random, whole.scales)
            assert any(not np.array_equal(results[ref], wanted[ref]) for ref in wanted)
            tried += 1
    assert tried >= 2


def test_a_buffer_over_a_living_tensor_shows() -> None:
    lowered = lower(residual_network(), with_sram("ethos-u85-1024", 20_000))
    random = Random(lowered)
    whole = Reference(lowered.program, random)
    wanted = whole.run(random.inputs())
    names = [op.name for op in lowered.ops]
    tried = 0
    for (name, number), address in lowered.memory.stages.items():
        position = names.index(name)
        victims = [
            each for ref, (each, _) in lowered.memory.tensors.items()
            if each.memory == "sram" and each.first < position < each.last
        ]  # fmt: skip
        for victim in victims[:1]:
            stages = {**lowered.memory.stages, (name, number): replace(address, offset=victim.offset)}
            broken = replace(lowered, memory=replace(lowered.memory, stages=stages))
            results = _results(broken, random, whole.scales)
            assert any(not np.array_equal(results[ref], wanted[ref]) for ref in wanted)
            tried += 1
    assert tried >= 2


def test_addresses_do_not_overlap() -> None:
    for sram in (2_500, 6_000, 1 << 20):
        lowered = lower(residual_network(), with_sram("ethos-u85-1024", sram))
        roots = [each for ref, (each, _) in lowered.memory.tensors.items() if ref not in lowered.program.views]
        everything = [*roots, *lowered.memory.stages.values()]
        for i, one in enumerate(everything):
            assert one.offset + one.bytes <= lowered.memory.peak_bytes[one.memory]
            for other in everything[i + 1 :]:
                apart = one.last < other.first or other.last < one.first or one.memory != other.memory
                assert apart or one.offset + one.bytes <= other.offset or other.offset + other.bytes <= one.offset
        assert lowered.memory.peak_bytes["sram"] <= sram


def test_target_without_lowering_is_refused() -> None:
    target = load_target("ethos-u85-1024")
    silent = replace(target, capabilities=target.capabilities - {"lower"}, missing={"lower": "engines.*.runs"})
    with pytest.raises(ValueError, match=r"'ethos-u85-1024' does not serve lower: engines\.\*\.runs"):
        lower(residual_network(), silent)


def test_tensor_larger_than_every_memory_is_named_with_the_sizes() -> None:
    target = load_target("h200")
    hbm = target.memories["hbm"]
    quantity = Quantity(1e6, Dimension.SIZE, "1 MB")
    small = replace(hbm, figures={**hbm.figures, "size": replace(hbm.figures["size"], quantity=quantity)})
    net = GraphBuilder()
    y = net.call("relu", net.input(1, 400, 64, 64), shape=(1, 400, 64, 64))
    named = r"tensor \$x0 takes 6,553,600 bytes, more than every memory: hbm has 1,000,000 bytes; lower the resolution"
    with pytest.raises(ValueError, match=named):
        lower(net.graph(y), replace(target, memories={"hbm": small}))


def test_tensor_that_no_address_reaches_is_refused_where_a_memory_has_no_size() -> None:
    net = GraphBuilder()
    y = net.call("relu", net.input(2**40, 2**40), shape=(2**40, 2**40))
    message = (
        "tensor $x0 takes 1,208,925,819,614,629,174,706,176 bytes, more than every memory: sram has 393,216 bytes, "
        "dram has at most 4,503,599,627,370,496 bytes; lower the resolution or the channels there, or run the network "
        "in parts"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        lower(net.graph(y), load_target("ethos-u85-1024"))


def test_open_shape_is_named() -> None:
    net = GraphBuilder()
    x = net.input(None, 3)
    with pytest.raises(ValueError, match=r"tensor \$x0 has the open shape \[None, 3\]"):
        lower(net.graph(net.call("relu", x, shape=(None, 3))), load_target("ethos-u85-1024"))
