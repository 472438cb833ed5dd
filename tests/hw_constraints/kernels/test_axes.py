from __future__ import annotations

import pytest

from bitwright.hw_constraints.kernels import Family, Kernel
from bitwright.hw_constraints.kernels.axes import innermost_run, moves_one_axis, reduced, turns


@pytest.mark.parametrize(
    ("shape", "order", "expected"),
    [
        ((1, 8, 6, 4), (0, 2, 3, 1), True),
        ((1, 8, 6, 4), (0, 3, 1, 2), True),
        ((1, 8, 6, 4), (0, 2, 1, 3), True),
        ((1, 8, 6, 4), (0, 3, 2, 1), False),
        ((2, 8, 6, 4), (1, 0, 3, 2), False),
        ((1, 8, 6, 1), (0, 3, 2, 1), True),  # an axis of length 1 may stand anywhere
        ((1, 2, 8, 6, 4), (0, 2, 1, 3, 4), True),
        ((3, 8, 6, 4, 5), (0, 3, 4, 1, 2), False),
    ],
)
def test_orders_that_move_one_axis(shape: tuple[int, ...], order: tuple[int, ...], expected: bool) -> None:
    turned = tuple(shape[axis] for axis in order)
    kernel = Kernel(
        family=Family.COPY,
        op="Transpose",
        format="float32",
        inputs=(shape,),
        outputs=(turned,),
        attributes=(("perm", order),),
    )
    assert moves_one_axis(kernel) is expected


@pytest.mark.parametrize(
    ("other", "expected_turns", "run"),
    [
        ((1, 8, 6, 4), 0, 1),
        ((1, 8, 1, 1), 1, 24),
        ((1, 1, 6, 4), 1, 24),
        ((1, 8, 6, 1), 1, 4),
        ((1, 8, 1, 4), 2, 4),
        ((1, 1, 6, 1), 2, 4),
        ((4,), 1, 4),
        ((8, 1, 1), 1, 24),
    ],
)
def test_how_an_operand_is_repeated(other: tuple[int, ...], expected_turns: int, run: int) -> None:
    shape = (1, 8, 6, 4)
    two = Kernel(family=Family.ELEMENTWISE, op="Mul", format="float32", inputs=(shape, other), outputs=(shape,))
    stored = Kernel(
        family=Family.ELEMENTWISE, op="Mul", format="float32", inputs=(shape,), outputs=(shape,), weight=other
    )
    for kernel in (two, stored):
        assert (turns(kernel), innermost_run(kernel)) == (expected_turns, run)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"const:1": (1,)}, (24, 8)),
        ({"axes": (-1,)}, (1, 4)),
        ({"const:1": (1, 3)}, (1, 32)),
        ({"const:1": 2}, (4, 6)),
        ({}, (1, 192)),
    ],
)
def test_what_a_reduction_goes_along(attributes: dict[str, tuple[int, ...]], expected: tuple[int, int]) -> None:
    kernel = Kernel(
        family=Family.OTHER, op="ReduceMax", format="float32", inputs=((1, 8, 6, 4),), outputs=((1,),),
        attributes=tuple(attributes.items()),
    )  # fmt: skip
    assert reduced(kernel) == expected
