from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.hw_constraints.kernels.draw import draw_kernels
from bitwright.hw_constraints.kernels.kernel import Family, Kernel
from bitwright.quant.errors import InputError

CONV = Kernel(
    family=Family.CONV,
    op="Conv",
    format="float32",
    inputs=((1, 16, 14, 14),),
    outputs=((1, 32, 7, 7),),
    weight=(32, 16, 3, 3),
    epilogue=("relu",),
    attributes=(("group", 1), ("strides", (2, 2))),
    layout="blocked",
)


def test_a_convolution_counts_each_product_and_each_byte_once() -> None:
    assert CONV.macs == 7 * 7 * 32 * 16 * 3 * 3
    assert (CONV.input_bytes, CONV.output_bytes, CONV.weight_bytes) == (
        4 * 16 * 14 * 14,
        4 * 32 * 7 * 7,
        4 * 32 * 16 * 3 * 3,
    )


@pytest.mark.parametrize(
    ("family", "inputs", "outputs", "weight", "macs"),
    [
        (Family.LINEAR, ((5, 64),), ((5, 10),), (64, 10), 5 * 64 * 10),
        (Family.MATMUL, ((1, 3, 7, 16), (1, 3, 16, 7)), ((1, 3, 7, 7),), (), 3 * 7 * 7 * 16),
        (Family.DEPTHWISE, ((1, 8, 4, 4),), ((1, 8, 4, 4),), (8, 1, 3, 3), 8 * 4 * 4 * 9),
        (Family.CONV_TRANSPOSE, ((1, 8, 4, 4),), ((1, 6, 8, 8),), (8, 6, 2, 2), 8 * 4 * 4 * 6 * 4),
        (Family.ELEMENTWISE, ((1, 8, 4, 4),), ((1, 8, 4, 4),), (1, 8, 1, 1), 0),
    ],
)
def test_multiply_accumulates(family: Family, inputs: tuple, outputs: tuple, weight: tuple, macs: int) -> None:
    kernel = Kernel(family=family, op="op", format="float32", inputs=inputs, outputs=outputs, weight=weight)
    assert kernel.macs == macs


def test_conversions_read_and_write_in_different_formats() -> None:
    shape = ((1, 4, 2, 2),)
    quantize = Kernel(family=Family.QUANTIZE, op="QuantizeLinear", format="int8", inputs=shape, outputs=shape)
    dequantize = Kernel(family=Family.DEQUANTIZE, op="DequantizeLinear", format="int8", inputs=shape, outputs=shape)
    assert (quantize.input_bytes, quantize.output_bytes) == (64, 16)
    assert (dequantize.input_bytes, dequantize.output_bytes) == (16, 64)


@given(st.sampled_from(["onnxruntime", "openvino"]), st.sampled_from(["float32", "int8"]), st.integers(0, 50))
def test_a_kernel_comes_back_from_json_with_the_same_key(runtime: str, number_format: str, seed: int) -> None:
    for kernel in draw_kernels(None, number_format, runtime, 3, seed):
        back = Kernel.from_json(json.loads(json.dumps(kernel.to_json())))
        assert back == kernel
        assert back.key == kernel.key


def test_the_key_is_the_same_in_every_release() -> None:
    assert CONV.key == (
        '{"attributes":{"group":1,"strides":[2,2]},"epilogue":["relu"],"family":"conv","format":"float32",'
        '"inputs":[[1,16,14,14]],"layout":"blocked","op":"Conv","outputs":[[1,32,7,7]],"weight":[32,16,3,3]}'
    )


def test_a_record_that_is_no_kernel_is_refused() -> None:
    with pytest.raises(InputError, match="not a kernel: KeyError"):
        Kernel.from_json({"family": "conv"})
    with pytest.raises(InputError, match="'teapot' is not a valid Family"):
        Kernel.from_json(CONV.to_json() | {"family": "teapot"})
    with pytest.raises(InputError, match=r"unknown fields \['colour'\]"):
        Kernel.from_json(CONV.to_json() | {"colour": 1})
