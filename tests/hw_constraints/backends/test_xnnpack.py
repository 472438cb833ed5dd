"""What XNNPACK's names of operators say. They are spelt as its release in LiteRT 2.3.0 spells them."""

import pytest

from bitwright.hw_constraints.backends.xnnpack import multiplies_weights, precision_of_operator


@pytest.mark.parametrize(
    ("name", "precision", "multiplies"),
    [
        ("Convolution (NHWC, F32) IGEMM", "float32", True),
        ("Convolution (NHWC, QS8, QC8W) IGEMM", "int8", True),
        ("Convolution (NHWC, QC8) DWConv", "int8", True),
        ("Deconvolution (NHWC, PQS8, QS8, QC8W)", "int8", True),
        ("Fully Connected (NC, QD8, F32, QC4W) GEMM", "int8", True),
        ("Fully Connected (NC, F32, QC8W) GEMM", "float32", True),
        ("Fully Connected (NC, BF16, F32)", "bfloat16", True),
        ("Dynamic Fully Connected (NC, PF16)", "float16", True),
        ("Batch Matrix Multiply (NC, BF16_F32)", "bfloat16", True),
        ("Convert (NC, F32, QD8)", "float32", False),
        ("Convert (NC, QS8, QC8)", "int8", False),
        ("Max Pooling (NHWC, U8)", "int8", False),
        ("Transpose (ND, X32) Transpose", "other", False),
        ("Mean (ND) Reduce2", "other", False),
        ("CUMSUM", "other", False),
    ],
)
def test_names_say_what_is_read_and_whether_it_is_multiplied(name, precision, multiplies):
    assert precision_of_operator(name) == precision
    assert multiplies_weights(name) == multiplies
