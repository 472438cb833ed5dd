"""16-bit saturation: the bound against brute force, and against what this processor computes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.proof import prove, saturation_risk
from bitwright.hw_constraints.proof.saturation import worst_pair_sums
from bitwright.quant.errors import InputError


def reaches(first: int, second: int) -> tuple[int, int]:
    """Lowest and highest a0 * first + a1 * second over a0, a1 in {0, 255}; linear, so the corners decide."""
    sums = [a0 * first + a1 * second for a0, a1 in itertools.product((0, 255), repeat=2)]
    return min(sums), max(sums)


@given(arrays(np.int8, (3, 6), elements=st.integers(-128, 127)))
def test_a_channel_is_at_risk_exactly_when_some_pair_leaves_int16(codes):
    for row, worst in zip(codes.astype(int), worst_pair_sums(codes.astype(np.int32)), strict=True):
        pairs = [reaches(*pair) for pair in itertools.combinations(row.tolist(), 2)]
        leaves = any(low < -32768 or high > 32767 for low, high in pairs)
        assert (worst > 32767) == leaves


@given(arrays(np.int8, (2, 9), elements=st.integers(-64, 63)))
def test_seven_bit_weights_never_saturate(codes):
    assert worst_pair_sums(codes.astype(np.int32)).max() <= 32767


def conv_file(network, saved, *, largest, weights=np.int8):
    net = network(weights=weights)
    value = net.qdq("image")
    net_weight = net.weight(8, 16, 3, 3, largest=largest)
    return saved(net.model(net.qdq(net.node("Conv", value, net_weight), zero_point=128)))


def test_large_weights_are_named_and_small_ones_are_not(network, saved):
    (risk,) = saturation_risk(conv_file(network, saved, largest=127))
    assert (risk.channels, risk.of_channels) == (8, 8)
    assert 32767 < risk.worst_sum <= 2 * 255 * 127
    assert saturation_risk(conv_file(network, saved, largest=63)) == ()


def test_unsigned_weights_are_no_risk(network, saved):
    assert saturation_risk(conv_file(network, saved, largest=127, weights=np.uint8)) == ()


def test_integer_operators_are_read_too(network, saved):
    net = network()
    scale, zero, code = net.constant(np.float32(0.1)), net.constant(np.uint8(0)), net.constant(np.int8(0))
    weight = net.constant(np.full((4, 16, 1, 1), 127, np.int8))
    codes = net.node("QuantizeLinear", "image", scale, zero)
    codes = net.node("QLinearConv", codes, scale, zero, weight, scale, code, scale, zero)
    path = saved(net.model(net.node("DequantizeLinear", codes, scale, zero)))
    assert [risk.worst_sum for risk in saturation_risk(path)] == [2 * 255 * 127]


def worst_case(network):
    """Codes of 255 times weights of 127: every pair saturates."""
    net = network()
    one = net.constant(np.float32(1))
    qparams = one, net.constant(np.uint8(0))
    value = net.node("DequantizeLinear", net.node("QuantizeLinear", "image", *qparams), *qparams)
    weight = net.node("DequantizeLinear", net.constant(np.full((8, 16, 1, 1), 127, np.int8)), one)
    out = net.constant(np.float32(127 * 16)), net.constant(np.uint8(0))
    coded = net.node("QuantizeLinear", net.node("Conv", value, weight), *out)
    return net.model(net.node("DequantizeLinear", coded, *out))


def test_onnxruntime_is_exact_on_this_machine(network):
    session = get_backend("onnxruntime").load(worst_case(network).SerializeToString())
    (result,) = session.run({"image": np.full((1, 16, 12, 12), 255, np.float32)}).values()
    assert np.all(result == 255 * 127 * 16)


def test_openvino_warns_where_it_is_wrong(network, saved):
    pytest.importorskip("openvino")
    if not this_machine().saturates_u8s8:
        pytest.skip("this processor has an 8-bit dot product: nothing saturates")
    path = saved(worst_case(network))
    batch = {"image": np.full((1, 16, 12, 12), 255, np.float32)}
    (result,) = get_backend("openvino").load(path).run(batch).values()
    assert np.all(result < 255 * 127 * 16)
    report = prove(path, "openvino", inputs=batch)
    assert "can saturate at 16 bits on this processor in 1 layers" in report.warnings[0]
    assert prove(path, "onnxruntime", inputs=batch).warnings == ()


def test_not_a_model(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"x\.onnx: not a readable ONNX model"):
        saturation_risk(tmp_path / "x.onnx")
