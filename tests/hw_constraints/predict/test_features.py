from __future__ import annotations

import math
from itertools import product

import pytest

from bitwright.hw_constraints.kernels import Family, Kernel
from bitwright.hw_constraints.predict.features import NAMES, features, share_inside


def _convolution(size: int, side: int, stride: int, dilation: int, pad: int) -> Kernel:
    out = (size + 2 * pad - dilation * (side - 1) - 1) // stride + 1
    return Kernel(
        family=Family.CONV,
        op="Conv",
        format="float32",
        inputs=((1, 8, size, size),),
        outputs=((1, 8, out, out),),
        weight=(8, 8, side, side),
        attributes=(
            ("dilations", (dilation, dilation)),
            ("group", 1),
            ("kernel_shape", (side, side)),
            ("pads", (pad,) * 4),
            ("strides", (stride, stride)),
        ),
    )


@pytest.mark.parametrize(
    ("size", "side", "stride", "dilation", "pad"),
    [(10, 3, 1, 12, 12), (7, 3, 1, 1, 1), (9, 5, 2, 1, 2), (8, 1, 1, 1, 0)],
)
def test_the_share_of_taps_that_meet_the_input_is_counted_one_by_one(
    size: int, side: int, stride: int, dilation: int, pad: int
) -> None:
    kernel = _convolution(size, side, stride, dilation, pad)
    out = kernel.outputs[0][2]
    places = [
        (stride * row + dilation * at - pad, stride * column + dilation * along - pad)
        for row, column, at, along in product(range(out), range(out), range(side), range(side))
    ]
    inside = sum(0 <= row < size and 0 <= column < size for row, column in places)
    assert share_inside(kernel) == pytest.approx(inside / len(places))


def test_other_kernels_have_no_padding_to_skip() -> None:
    kernel = Kernel(family=Family.ACTIVATION, op="Relu", format="float32", inputs=((1, 8),), outputs=((1, 8),))
    assert share_inside(kernel) == 1.0


@pytest.mark.parametrize(("channels", "expected"), [(15, (0, 8)), (16, (1, 1)), (33, (0, 2)), (24, (0, 1))])
def test_channels_behind_the_last_vector_are_counted(channels: int, expected: tuple[int, int]) -> None:
    """15 channels pad 16 by next to nothing, and take three times as long where seven are computed one by one."""
    shape = (1, channels, 8, 8)
    kernel = Kernel(family=Family.DEPTHWISE, op="Conv", format="int8", inputs=(shape,), outputs=(shape,))
    (row,) = features([kernel])
    fills, behind = (row[NAMES.index(f"channels {name} vectors")] for name in ("fill", "behind"))
    assert (fills, round(math.exp(behind))) == expected
