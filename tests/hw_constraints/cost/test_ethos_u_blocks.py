import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.hw_constraints.cost.ethos_u.block_search import BlockQuestion, Traversal
from bitwright.hw_constraints.cost.ethos_u.blocks import choose_block
from bitwright.hw_constraints.cost.ethos_u.figures import CONFIGURATIONS, round_up
from bitwright.hw_constraints.cost.ethos_u.operations import OpKind, Window

U55, U65, U85 = (CONFIGURATIONS[name] for name in ("ethos-u55-128", "ethos-u65-512", "ethos-u85-1024"))


def question(ofm, depth, kernel=1, stride=1, kind=OpKind.CONVOLUTION, type="conv2d"):
    ifm = ((ofm[0] - 1) * stride + kernel, (ofm[1] - 1) * stride + kernel, depth)
    return BlockQuestion(
        kind=kind,
        type=type,
        ofm=ofm,
        ifm=ifm,
        ifm2=ifm if kind is OpKind.ELEMENTWISE else None,
        window=Window(kernel=(kernel, kernel), stride=(stride, stride)),
        upscale=1,
        uses_table=False,
    )


def banks(size, granule):
    return round_up(math.ceil(size / 1024) * 2, granule)


def u55_fits(configuration, asked, block):
    """Two banks for results, two at the end, two input buffers, two accumulator buffers of 32 bits."""
    granule, depth = configuration.ifm_granule, round_up(block.ifm[2], 8)
    held = banks(block.ifm[0] * block.ifm[1] * depth, granule)
    if asked.kind is OpKind.ELEMENTWISE:
        held += banks(block.ifm[0] * block.ifm[1] * depth, granule)
    else:
        held += banks(math.prod(block.ofm[:2]) * round_up(block.ofm[2], 8) * 4, configuration.accumulator_granule)
    return held + 4 <= configuration.banks


def traffic_per_output(asked, ofm, ifm):
    """Elements fetched for one output element, counted block by block; blocks at the edge count by their share."""
    rows, columns, depth = (asked.ofm[axis] / ofm[axis] for axis in range(3))
    weights = math.prod(asked.window.kernel) * asked.ifm[2] * asked.ofm[2] * math.ceil(rows) * math.ceil(columns)
    inputs = ifm[0] * ifm[1] * asked.ifm[2] * rows * columns * math.ceil(depth)
    return (weights + inputs) / math.prod(asked.ofm)


def every_u55_block(configuration, asked, ifm_depth):
    micro = configuration.micro_blocks[0]
    limits = [round_up(min(asked.ofm[axis], configuration.largest_block[axis]), micro[axis]) for axis in range(3)]
    for depth in range(micro[2], limits[2] + 1, micro[2]):
        if depth < asked.ofm[2] and depth % 16:
            continue
        for rows in range(micro[0], limits[0] + 1, micro[0]):
            for columns in range(micro[1], limits[1] + 1, micro[1]):
                area = [
                    round_up((size - 1) * asked.window.stride[axis] + asked.window.kernel[axis], micro[axis])
                    for axis, size in enumerate((rows, columns))
                ]
                yield (rows, columns, depth), (*area, ifm_depth)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(2, 40),
    depth=st.integers(1, 150),
    inputs=st.integers(1, 130),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
)
def test_no_u55_block_that_fits_fetches_less(rows, columns, depth, inputs, kernel, stride):
    asked = question((rows, columns, depth), inputs, kernel, stride)
    chosen = choose_block(U55, asked)
    assert u55_fits(U55, asked, chosen)

    def cost(ofm, ifm):
        # The search prefers blocks of which two hold the whole input: they cost half.
        whole = math.prod(asked.ifm) < math.prod(ifm) * 2
        return traffic_per_output(asked, ofm, ifm) / (2 if whole else 1)

    class Candidate:
        pass

    best = math.inf
    for ofm, ifm in every_u55_block(U55, asked, chosen.ifm[2]):
        candidate = Candidate()
        candidate.ofm, candidate.ifm = ofm, ifm
        if u55_fits(U55, asked, candidate):
            best = min(best, cost(ofm, ifm))
    assert cost(chosen.ofm, chosen.ifm) <= best * (1 + 1e-5)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 130),
    columns=st.integers(1, 130),
    depth=st.integers(1, 600),
    inputs=st.integers(1, 600),
    kernel=st.sampled_from([1, 3, 7]),
    kind=st.sampled_from([OpKind.CONVOLUTION, OpKind.DEPTHWISE, OpKind.POOLING, OpKind.ELEMENTWISE]),
)
def test_u85_blocks_fit_their_memories(rows, columns, depth, inputs, kernel, kind):
    if kind is not OpKind.CONVOLUTION:
        inputs = depth
    if kind is OpKind.ELEMENTWISE:
        kernel = 1
    block = choose_block(U85, question((rows, columns, depth), inputs, kernel, kind=kind))
    assert all(size % micro == 0 for size, micro in zip(block.ofm[:2], block.micro[:2], strict=True))
    assert block.ofm[2] % 16 == 0
    if kind is OpKind.ELEMENTWISE:
        return  # neither accumulators nor input buffer
    assert math.prod(block.ofm) * 4 <= U85.accumulator_ram
    assert all(size <= largest for size, largest in zip(block.ofm, U85.largest_block, strict=True))


def test_shallow_inputs_are_worked_off_kernel_first():
    assert choose_block(U55, question((16, 16, 32), 3, 3)).traversal is Traversal.KERNEL_FIRST
    assert choose_block(U55, question((16, 16, 32), 64, 3)).traversal is Traversal.DEPTH_FIRST


# What ethos-u-vela 5.2.0 wrote into its debug database for layers of ResNet-18 and MobileNetV2.
VELA_BLOCKS = [
    (U55, question((56, 56, 64), 64, 3), (8, 8, 16), (10, 10, 32)),
    (U55, question((28, 28, 128), 64, 1, 2), (1, 28, 64), (1, 56, 32)),
    (U85, question((28, 28, 32), 192), (4, 28, 32), (4, 28, 64)),
]


@pytest.mark.parametrize(("configuration", "asked", "ofm", "ifm"), VELA_BLOCKS)
def test_blocks_are_those_that_vela_chooses(configuration, asked, ofm, ifm):
    block = choose_block(configuration, asked)
    assert (block.ofm, block.ifm) == (ofm, ifm)
