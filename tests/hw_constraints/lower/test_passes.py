"""What single passes decide, and that they say why."""

from __future__ import annotations

import math

import pytest
from programs import with_sram
from test_interpret import attention_block, residual_network

from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.lower.explain import explain
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.lower.program import LoweredGraph, Pass
from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import plan
from bitwright.quant.scheme import Override


def lowered(graph: Graph, name: str = "ethos-u85-1024") -> LoweredGraph:
    return lower(graph, load_target(name))


def reasons(program: LoweredGraph, name: str, by: Pass) -> list[str]:
    return [reason.text for reason in program.find(name).reasons if reason.by is by]


def test_multiplications_survive_every_pass() -> None:
    for graph in (residual_network(), attention_block()):
        counted = sum(op.work.macs for op in lowered(graph).ops if op.work)
        assert counted == sum(graph.macs(node) for node in graph.nodes)


@pytest.mark.parametrize("op", ["conv1d", "conv3d", "conv_transpose2d", "conv_transpose3d"])
def test_multiplications_of_convolutions_in_other_dimensions(op: str) -> None:
    net, rank = GraphBuilder(), int(op[-2])
    transposed, kernel, stride = "transpose" in op, 2, 2
    size = 8 * stride if transposed else 8 // stride
    weight = net.parameter(*((4, 6) if transposed else (6, 4)), *(kernel,) * rank)
    arguments = {name: (value,) * rank for name, value in (("stride", stride), ("padding", 0), ("dilation", 1))}
    x = net.input(1, 4, *(8,) * rank)
    graph = net.graph(net.call(op, x, weight, None, shape=(1, 6, *(size,) * rank), groups=1, **arguments))
    (layer,) = (each for each in lowered(graph).ops if each.block.nodes)
    assert layer.work is not None
    assert layer.work.kind is WorkKind.CONVOLUTION
    assert layer.work.macs == graph.macs(graph.nodes[0]) > 0


def test_chain_is_one_operation_and_says_so() -> None:
    program = lowered(residual_network())
    stem = program.find("conv2d_0")
    assert [node.op for node in stem.block.nodes] == ["conv2d", "relu"]
    assert reasons(program, "relu_1", Pass.FUSE) == [
        "ethos-u85-1024 runs conv2d -> relu as one; nothing between them is written"
    ]


def test_attention_is_written_out() -> None:
    program = lowered(attention_block())
    parts = [op.block.op for op in program.ops if op.name.startswith("scaled_dot_product_attention")]
    assert parts == ["transpose", "matmul", "mul", "softmax", "matmul"]
    assert "written as transpose, matmul, mul, softmax, matmul" in explain(program, "scaled_dot_product_attention_12.1")


def island(*, tail: bool) -> Graph:
    """A layer, an operator that no accelerator here has beside a branch that needs nothing of it, and more layers."""
    net = GraphBuilder()
    x = net.conv2d(net.input(1, 3, 8, 8), 16)
    branch = net.conv2d(x, 16)
    odd = net.call("erf", x, shape=(1, 16, 8, 8))
    y = net.call("add", branch, odd, shape=(1, 16, 8, 8), alpha=1)
    return net.graph(net.conv2d(y, 16) if tail else y)


def test_host_operator_splits_the_program_into_convex_stretches() -> None:
    program = lowered(island(tail=True))
    sides = [(len(ops), ops[0].block.on_accelerator) for ops in program.partitions]
    # The branch needs nothing of the host: it runs with the first stretch.
    assert sides == [(2, True), (1, False), (2, True)]
    assert "ethos-u85-1024 has no erf; what it lacks runs on the host" in " ".join(
        reasons(program, "erf_2", Pass.PARTITION)
    )
    assert "after erf 'erf_2' on the host" in " ".join(reasons(program, "add_3", Pass.PARTITION))


def test_one_partition_ends_at_the_first_break() -> None:
    program = lowered(island(tail=True), "edge-tpu")
    places = {op.name: op.block.on_accelerator for op in program.ops}
    assert places["conv2d_0"] and places["conv2d_1"]
    assert not any(places[name] for name in ("erf_2", "add_3", "conv2d_4"))
    assert "one partition, which ends at erf 'erf_2'" in " ".join(reasons(program, "conv2d_4", Pass.PARTITION))


def test_tensors_that_cross_sides_lie_behind() -> None:
    program = lowered(island(tail=False))
    crossing = program.find("erf_2").block
    for ref in (*crossing.reads, *crossing.writes):
        assert program.memory.tensors[program.program.stored(ref)][0].memory == "dram"


def channels_last_rows(*, swapped: bool) -> Graph:
    """An image turned to rows of channels, as a transformer's stem does; or to rows of columns, which costs a copy."""
    net = GraphBuilder()
    x = net.conv2d(net.input(1, 3, 8, 8), 16)
    dims = (0, 3, 2, 1) if swapped else (0, 2, 3, 1)
    turned = net.call("permute", x, shape=(1, 8, 8, 16), dims=dims)
    return net.graph(net.call("linear", turned, net.parameter(4, 16), None, shape=(1, 8, 8, 4)))


def test_permutation_that_the_layout_makes_anyway_moves_nothing() -> None:
    assert [op.block.op for op in lowered(channels_last_rows(swapped=False)).ops] == ["conv2d", "linear"]
    moved = [op.block.op for op in lowered(channels_last_rows(swapped=True)).ops]
    assert moved == ["conv2d", "relayout", "permute", "linear"]


def test_packed_channels_take_their_padding() -> None:
    program = lowered(residual_network(), "orin-dla")
    address, storage = program.memory.tensors[program.find("conv2d_0").block.writes[0]]
    assert storage.stored_shape == (1, 1, 20, 20, 32)  # 12 channels in a block of 32
    assert address.bytes == math.prod(storage.stored_shape)


def test_spill_names_bytes_and_room() -> None:
    program = lower(residual_network(), with_sram("ethos-u85-1024", 6_000))
    assert program.memory.spilled
    for why in program.memory.spilled.values():
        assert "goes to dram" in why
        assert "bytes" in why


def test_explanation_has_every_pass() -> None:
    text = explain(lowered(residual_network()), "conv2d_0")
    for word in ("decompose:", "fuse:", "partition:", "layout:", "tile:", "net.py:1", "129,600 MACs"):
        assert word in text


def test_unknown_layer_lists_the_layers() -> None:
    with pytest.raises(ValueError, match=r"layer 'stem': no such layer; there are: conv2d_0, conv2d_2"):
        lowered(residual_network()).find("stem")


def test_several_operations_of_one_module_are_told_with_their_lines() -> None:
    net = GraphBuilder()
    x = net.input(1, 4, 8, 8)
    for _ in range(2):
        weight = net.parameter(4, 4, 1, 1)
        x = net.call("conv2d", x, weight, None, shape=(1, 4, 8, 8), module="neck.proj", line="x = self.proj(x)",
                     stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)  # fmt: skip
    with pytest.raises(ValueError, match=r"layer 'neck\.proj': 2 operations match; name one of them:") as caught:
        lowered(net.graph(x)).find("neck.proj")
    assert str(caught.value).splitlines()[1:] == [
        "  conv2d_0: conv2d at net.py:1: x = self.proj(x)",
        "  conv2d_1: conv2d at net.py:2: x = self.proj(x)",
    ]


def blocks_with_a_pool() -> Graph:
    """Three convolutions, a max pool behind each of the first two."""
    net = GraphBuilder()
    x, side = net.input(1, 8, 32, 32), 32
    for module in ("first", "second"):
        x = net.call("relu", same(net, x, module), shape=(1, 8, side, side), module=module)
        side //= 2
        window = {"kernel_size": (2, 2), "stride": (2, 2)}
        x = net.call("max_pool2d", x, shape=(1, 8, side, side), module=f"{module}.pool", **window)
    return net.graph(same(net, x, "third"))


def same(net: GraphBuilder, x: TensorRef, module: str) -> TensorRef:
    """A convolution that changes no shape."""
    shape = tuple(size or 1 for size in net.tensors[x].shape)
    numbers = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    weight = net.parameter(shape[1], shape[1], 3, 3)
    return net.call("conv2d", x, weight, None, shape=shape, module=module, **numbers)


@pytest.mark.parametrize("target", ["ethos-u85-1024", "ethos-u55-128", "h200"])
def test_a_part_in_float_runs_where_there_is_floating_point(target: str) -> None:
    """Arm's Vela 5.2.0: "Tensors must be of type: int16, int32, int8, uint8", else the CPU runs the operator."""
    graph, chip = blocks_with_a_pool(), load_target(target)
    scheme = chip.scheme().with_overrides(Override(module="second", keep_float=True), Override(module="second.pool"))
    program = lower(graph, chip, plan=plan(graph, scheme))
    hosted = {op.block.op + " " + op.block.module_path for op in program.ops if not op.block.on_accelerator}
    in_float = {"conv2d second", "relu second", "max_pool2d second.pool"}
    assert hosted == (set() if chip.numerics.float_formats else in_float)


def test_what_the_host_runs_makes_the_time_a_lower_bound() -> None:
    graph, chip = blocks_with_a_pool(), load_target("ethos-u85-1024")
    whole = estimate(lower(graph, chip))
    scheme = chip.scheme().with_overrides(Override(module="second", keep_float=True))
    parted = estimate(lower(graph, chip, plan=plan(graph, scheme)))
    assert not whole.not_modelled and whole.us > parted.us > 0
    assert {layer.bound_by for layer in parted.not_modelled} == {"no figures of the host"}
    assert any(note.startswith("no figures for what the accelerator does not run: ") for note in parted.assumptions)
