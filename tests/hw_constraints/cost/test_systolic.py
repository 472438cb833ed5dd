import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.hw_constraints.cost.systolic import layer_cycles, systolic_cycles
from bitwright.hw_constraints.lower.work import Axis, Work, WorkKind
from bitwright.hw_constraints.target_hardware import Dataflow

WS, OS, IS = Dataflow.WEIGHT_STATIONARY, Dataflow.OUTPUT_STATIONARY, Dataflow.INPUT_STATIONARY


def axis(size, kernel=1, stride=1):
    return Axis(output=(size - kernel) // stride + 1, input=size, kernel=kernel, stride=stride)


def convolution(height, width, kernel_y, kernel_x, channels, filters, stride):
    y, x = axis(height, kernel_y, stride), axis(width, kernel_x, stride)
    return Work(kind=WorkKind.CONVOLUTION, out_channels=filters, in_channels=channels, y=y, x=x)


LAYERS = [
    convolution(9, 9, 3, 3, 20, 30, 1),
    convolution(15, 15, 1, 1, 7, 50, 2),
    convolution(23, 17, 5, 3, 11, 13, 2),
    convolution(6, 6, 6, 6, 10, 40, 1),
]


# What SCALE-Sim 3.0.0 printed for these layers; the row `scalesim_cycles` runs it on whole networks.
@pytest.mark.parametrize(
    ("dataflow", "rows", "columns", "cycles"),
    [
        (WS, 16, 24, [2471, 353, 1473, 2529]),
        (WS, 24, 16, [1775, 503, 993, 2834]),
        (OS, 16, 24, [1743, 539, 1014, 795]),
        (OS, 24, 16, [1307, 539, 811, 1193]),
        (IS, 16, 24, [3023, 311, 2947, 2161]),
        (IS, 24, 16, [2943, 447, 2624, 1529]),
    ],
)
def test_scale_sim_counts_the_same(dataflow, rows, columns, cycles):
    assert [systolic_cycles(layer, dataflow, rows, columns) for layer in LAYERS] == cycles


def one_fold_output_stationary(results, channels, taps):
    """Clocks an array that multiplies [results, taps] by [taps, channels], operands skewed by a cycle a row and column.

    Returns the cycles until the last product, and whether the sums are right.
    """
    chance = np.random.default_rng(0)
    left, right = chance.integers(-9, 9, (results, taps)), chance.integers(-9, 9, (taps, channels))
    sums, done, cycle = np.zeros((results, channels), dtype=int), np.zeros((results, channels), dtype=int), 0
    while (done < taps).any():
        for row in range(results):
            for column in range(channels):
                step = cycle - row - column
                if 0 <= step < taps:
                    sums[row, column] += left[row, step] * right[step, column]
                    done[row, column] += 1
        cycle += 1
    return cycle, bool((sums == left @ right).all())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 8))
def test_one_fold_that_fills_the_array_takes_as_long_as_clocking_it(results, channels, taps):
    cycles, right = one_fold_output_stationary(results, channels, taps)
    assert right
    assert layer_cycles(taps, channels, results, OS, results, channels) == cycles - 1


def test_groups_are_layers_and_images_are_results():
    one = LAYERS[0]
    grouped = Work(kind=one.kind, groups=3, out_channels=30, in_channels=20, y=one.y, x=one.x)
    assert systolic_cycles(grouped, WS, 16, 24) == 3 * systolic_cycles(one, WS, 16, 24)
    images = Work(kind=one.kind, batch=2, out_channels=30, in_channels=20, y=one.y, x=one.x)
    assert systolic_cycles(images, WS, 16, 24) == layer_cycles(180, 30, 2 * 49, WS, 16, 24)
    products = Work(
        kind=WorkKind.MATRIX_PRODUCT,
        batch=4,
        out_channels=8,
        in_channels=5,
        y=axis(1),
        x=axis(7),
        weights_are_activations=True,
    )
    assert systolic_cycles(products, OS, 4, 4) == 4 * layer_cycles(5, 8, 7, OS, 4, 4)


def test_what_multiplies_nothing_is_refused():
    pool = Work(kind=WorkKind.POOL, groups=8, out_channels=1, in_channels=1, y=axis(8, 2, 2), x=axis(8, 2, 2))
    with pytest.raises(ValueError, match="work of kind pool multiplies nothing"):
        systolic_cycles(pool, WS, 8, 8)
    with pytest.raises(ValueError, match="dataflow row_stationary is none of weight_stationary, output_stationary"):
        systolic_cycles(LAYERS[0], Dataflow.ROW_STATIONARY, 8, 8)
