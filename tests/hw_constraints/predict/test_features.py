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


def _of_axes(family: Family, op: str, *inputs: tuple[int, ...], **attributes: object) -> Kernel:
    return Kernel(
        family=family, op=op, format="float32", inputs=inputs, outputs=inputs[:1], attributes=tuple(attributes.items())
    )  # type: ignore[arg-type]


_PICTURE = (1, 16, 16, 16)


@pytest.mark.parametrize(
    "kernels",
    [
        [_of_axes(Family.SOFTMAX, "Softmax", _PICTURE, axis=axis) for axis in (1, 2, 3)],
        [
            _of_axes(Family.COPY, "Transpose", _PICTURE, perm=order)
            for order in ((0, 3, 1, 2), (0, 3, 2, 1), (0, 2, 1, 3))
        ],
        [
            _of_axes(Family.ELEMENTWISE, "Mul", _PICTURE, other)
            for other in ((1, 16, 1, 1), (1, 1, 16, 1), (1, 1, 1, 16), (1, 1, 16, 16), (1, 16, 1, 16))
        ],
        [_of_axes(Family.OTHER, "ReduceMax", _PICTURE, **{"const:1": axes}) for axes in ((1,), (3,), (1, 3), (2, 3))],
    ],
    ids=["softmax", "transpose", "repeated", "reduced"],
)
def test_axes_tell_kernels_of_equal_sizes_apart(kernels: list[Kernel]) -> None:
    rows = {tuple(row) for row in features(kernels)}
    assert len(rows) == len(kernels)
