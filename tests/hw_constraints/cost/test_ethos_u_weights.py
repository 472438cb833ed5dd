import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.hw_constraints.cost.ethos_u.block_search import Block, Traversal
from bitwright.hw_constraints.cost.ethos_u.figures import CONFIGURATIONS
from bitwright.hw_constraints.cost.ethos_u.weight_codes import histogram
from bitwright.hw_constraints.cost.ethos_u.weights import encode, encode_fast

U55, U65, U85 = (CONFIGURATIONS[name] for name in ("ethos-u55-128", "ethos-u65-512", "ethos-u85-1024"))


def block(traversal=Traversal.DEPTH_FIRST, depth=64, micro=(1, 2, 8)):
    return Block(ofm=(8, 8, depth), ifm=(8, 8, 32), micro=micro, traversal=traversal)


def laplace(rng, shape, scale):
    return np.clip(np.rint(rng.laplace(0, scale, shape)), -127, 127).astype(np.int8)


def normal(rng, shape, scale):
    return np.clip(np.rint(rng.normal(0, scale, shape)), -127, 127).astype(np.int8)


def uniform(rng, shape, scale):
    return rng.integers(-scale, scale + 1, shape).astype(np.int8)


# Bytes that `ethosu.mlw_codec.encode` of ethos-u-vela 5.2.0 made of these codes, each from its own seed.
ENCODED = [
    (laplace, 2, 2, 16736),
    (laplace, 8, 8, 27008),
    (laplace, 20, 20, 33488),
    (laplace, 40, 40, 36576),
    (uniform, 127, 7, 36880),
    (normal, 35, 3, 33648),
]


@pytest.mark.parametrize(("draw", "scale", "seed", "size"), ENCODED)
def test_encoded_size_is_that_of_velas_encoder(draw, scale, seed, size):
    codes = draw(np.random.default_rng(seed), (64, 3, 3, 64), scale)
    assert encode(histogram(codes), U55, block()).weight_bytes == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("scale", [1, 4, 16])
def test_encoded_size_is_no_less_than_the_entropy(scale):
    codes = laplace(np.random.default_rng(scale), (64, 3, 3, 64), scale)
    share = np.unique(codes, return_counts=True)[1] / codes.size
    entropy = -(share * np.log2(share)).sum() * codes.size / 8
    assert entropy <= encode(histogram(codes), U55, block()).weight_bytes <= 1.15 * entropy


def test_many_zeros_are_coded_as_runs():
    codes = np.zeros((64, 3, 3, 64), dtype=np.int8)
    codes[::16] = 5
    encoded = encode(histogram(codes), U55, block())
    assert encoded.zeros == codes.size - np.count_nonzero(codes)
    assert encoded.weight_bytes < codes.size / 4


# Elements of the stream, padded by hand. [out, kh, kw, in], traversal, micro-block, configuration, elements.
PADDED = [
    ((64, 3, 3, 20), Traversal.DEPTH_FIRST, (1, 2, 8), U55, 64 * 9 * 32),
    ((60, 3, 3, 3), Traversal.KERNEL_FIRST, (1, 2, 8), U55, 64 * 12 * 8),
    ((30, 3, 3, 1), Traversal.DEPTHWISE, (1, 2, 8), U55, 32 * 12),
    ((24, 1, 1, 32), Traversal.DEPTH_FIRST, (2, 2, 8), U65, 32 * 32),  # two cores of 12 channels, 16 each
    ((64, 3, 3, 20), Traversal.DEPTH_FIRST, (2, 2, 32), U85, 64 * 9 * 64),
    ((60, 3, 3, 3), Traversal.KERNEL_FIRST, (2, 2, 32), U85, 64 * 10 * 16),
    ((30, 3, 3, 1), Traversal.DEPTHWISE, (2, 4, 16), U85, 32 * 16),
]


@pytest.mark.parametrize(("shape", "traversal", "micro", "configuration", "elements"), PADDED)
def test_the_stream_is_padded_to_what_the_hardware_reads(shape, traversal, micro, configuration, elements):
    codes = np.ones(shape, dtype=np.int8)
    assert encode(histogram(codes), configuration, block(traversal, micro=micro)).source == elements


def test_a_large_kernel_is_padded_subkernel_by_subkernel():
    codes = np.ones((16, 9, 9, 8), dtype=np.int8)  # 8x8, 8x1, 1x8, 1x1 taps → 64, 8, 8, 4
    assert encode(histogram(codes), U55, block(Traversal.KERNEL_FIRST)).source == 16 * 84 * 8


def test_the_fast_decoder_reads_a_byte_an_element():
    codes = laplace(np.random.default_rng(0), (64, 3, 3, 64), 4)
    fast = encode_fast(encode(histogram(codes), U85, block(micro=(2, 2, 32))))
    assert fast.weight_bytes == 32 + 64 * 9 * 64


@settings(max_examples=60, deadline=None)
@given(channels=st.integers(1, 300), depth=st.integers(1, 70), cut=st.floats(0, 1))
def test_slices_hold_all_weights_and_little_more(channels, depth, cut):
    codes = np.full((channels, 1, 1, depth), 3, dtype=np.int8)
    encoded = encode(histogram(codes), U65, block(micro=(2, 2, 8)))
    border = min(max(round(channels * cut), 1), channels)
    pieces = [encoded.slice_bytes(a, b) for a, b in ((0, border), (border, channels)) if b > a]
    assert encoded.bytes <= sum(pieces) + 16
    assert sum(pieces) <= encoded.bytes + 2 * 16 * (1 + encoded.cores) + 16
    assert all(size % 16 == 0 for size in pieces)
