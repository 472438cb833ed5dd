import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.hw_constraints.cost.ethos_u.figures import ceil_div
from bitwright.hw_constraints.cost.ethos_u.network import connect
from bitwright.hw_constraints.cost.ethos_u.operations import FeatureMap, NpuOp, OpKind, Window
from bitwright.hw_constraints.cost.ethos_u.schedule import cost_of
from bitwright.hw_constraints.cost.ethos_u.systems import system_of
from bitwright.hw_constraints.cost.ethos_u.weight_codes import histogram
from bitwright.hw_constraints.target import load_target

SYSTEMS = {name: system_of(load_target(name)) for name in ("ethos-u55-128", "ethos-u65-512", "ethos-u85-1024")}
KINDS = (OpKind.CONVOLUTION, OpKind.DEPTHWISE, OpKind.POOLING, OpKind.ELEMENTWISE)
LAYER = st.tuples(
    st.sampled_from(KINDS),
    st.integers(1, 140),  # channels out
    st.sampled_from([1, 2, 3, 5, 7, 9, 13]),
    st.integers(1, 3),  # stride
    st.integers(1, 2),  # dilation
)


def network(side, channels, layers):
    """A chain of operations; elementwise ones add a feature map to itself."""
    rng = np.random.default_rng(0)
    current = FeatureMap(name="input", shape=(side, side, channels), is_input=True, linear=True)
    operations = []
    for number, (kind, outputs, kernel, stride, dilation) in enumerate(layers):
        rows, columns, depth = current.shape
        elementwise = kind is OpKind.ELEMENTWISE
        if elementwise:
            kernel = stride = 1
        outputs = outputs if kind is OpKind.CONVOLUTION else depth
        shape = (ceil_div(rows, stride), ceil_div(columns, stride), outputs)
        taps = (outputs, kernel, kernel, depth if kind is OpKind.CONVOLUTION else 1)
        weighted = kind in (OpKind.CONVOLUTION, OpKind.DEPTHWISE)
        output = FeatureMap(name=str(number), shape=shape)
        strides = tuple(1 if size == 1 else stride for size in shape[:2])
        operations.append(
            NpuOp(
                name=output.name,
                kind=kind,
                type={OpKind.ELEMENTWISE: "add", OpKind.POOLING: "max_pool2d"}.get(kind, "conv2d"),
                inputs=[current] * (2 if elementwise else 1),
                output=output,
                shape=shape,
                input_shapes=[current.shape] * (2 if elementwise else 1),
                window=Window(kernel=(kernel, kernel), stride=strides, dilation=(dilation, dilation)),
                weights=histogram(rng.integers(-127, 128, taps).astype(np.int8)) if weighted else None,
                macs=math.prod(shape) * math.prod(taps[1:]) if weighted else 0,
            )
        )
        current = output
    current.is_output = current.linear = True
    connect(operations)
    return operations


@pytest.mark.parametrize("target", SYSTEMS)
@settings(max_examples=15, deadline=None)
@given(side=st.integers(1, 150), channels=st.integers(1, 140), layers=st.lists(LAYER, min_size=1, max_size=6))
def test_any_chain_has_a_cost_within_its_bounds(target, side, channels, layers):
    system = SYSTEMS[target]
    operations = network(side, channels, layers)
    cost = cost_of(operations, system)
    assert len(cost.ops) == len(operations)
    for each in cost.ops:
        assert each.cycles >= each.op.macs / system.configuration.total_macs
        assert each.cycles >= max(each.memory_cycles.values())
    assert cost.on_chip_peak <= system.staging_limit
    whole = sum(op.step.weights.bytes for op in cost.ops if op.step.weights is not None)
    assert cost.off_chip_bytes >= 0.99 * whole  # all weights come from there at least once
