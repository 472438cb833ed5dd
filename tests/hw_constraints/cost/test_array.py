import pytest

from bitwright.hw_constraints.cost.array import nest_cycles, skew_cycles
from bitwright.hw_constraints.lower.tile import choose_tiling
from bitwright.hw_constraints.lower.tile_cost import TileMachine
from bitwright.hw_constraints.lower.work import Axis, Work, WorkKind
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_hardware import Loop, Operand

ROWS_BY_COLUMNS = {Loop.OUT_CHANNELS: 96, Loop.IN_CHANNELS: 96}


def convolution(channels, filters, size, kernel, stride=1, padding=0):
    output = (size + 2 * padding - kernel) // stride + 1
    axis = Axis(output=output, input=size, kernel=kernel, stride=stride, padding=padding)
    return Work(kind=WorkKind.CONVOLUTION, out_channels=filters, in_channels=channels, y=axis, x=axis)


def machine(**changes):
    given = {"capacity_bytes": 3 << 20, "bytes_per_cycle": 32.0, "unroll": tuple(ROWS_BY_COLUMNS.items()), **changes}
    return TileMachine(**given)


# Layers of ResNet-18 on the array of `experiments/benchmarks/peers/zigzag/array96.yaml`, as ZigZag 3.9.1 reckons them:
# computing, and all with transfers. The row `zigzag_array` compares whole networks.
@pytest.mark.parametrize(
    ("work", "computing", "cycles"),
    [
        (convolution(3, 64, 224, 7, 2, 3), 614656, 619427),
        (convolution(64, 128, 56, 3, 2, 1), 14112, 20544),
        (convolution(128, 128, 28, 3, 1, 1), 28224, 31552),
        (convolution(256, 256, 14, 3, 1, 1), 15876, 20042),
        (convolution(512, 512, 7, 3, 1, 1), 15876, 76776),
        (convolution(256, 512, 14, 1, 2), 882, 5037),
    ],
)
def test_zigzag_reckons_the_same_layers(work, computing, cycles):
    found = nest_cycles(work, choose_tiling(work, machine()), ROWS_BY_COLUMNS)
    assert found.computing == computing
    # Layer by layer the two differ in what of the first load they hide: ZigZag fills the whole buffer first, and loads
    # weights beside it.
    assert found.total == pytest.approx(cycles, rel=0.35)


def test_the_skew_is_that_of_the_units_in_use():
    assert skew_cycles(convolution(3, 64, 224, 7, 2, 3), ROWS_BY_COLUMNS) == 2 + 63
    assert skew_cycles(convolution(512, 512, 7, 3, 1, 1), ROWS_BY_COLUMNS) == 190
    assert skew_cycles(convolution(8, 8, 7, 3), {Loop.KERNEL_Y: 4}) == 2


def test_waiting_is_what_transfers_take_beyond_computing():
    work = convolution(512, 512, 7, 3, 1, 1)
    slow, fast = machine(bytes_per_cycle=1.0), machine(bytes_per_cycle=1e6)
    assert nest_cycles(work, choose_tiling(work, slow), {}).total == pytest.approx(work.weight_bytes, rel=0.05)
    assert nest_cycles(work, choose_tiling(work, fast), {}).waiting < 10


def test_a_machine_is_read_from_a_target():
    target = load_target("tesla-fsd-hw3")
    npu, memories = target.engines["npu"], target.memories
    found = TileMachine.of(npu, memories["sram"], memories["dram"], WorkKind.CONVOLUTION, room=1000)
    assert found.capacity_bytes == 1000
    assert found.bytes_per_cycle == pytest.approx(68.2e9 / 2e9)
    assert dict(found.unroll) == npu.array.unroll
    assert dict(found.ports) == {Operand.ACTIVATIONS: 256, Operand.WEIGHTS: 128, Operand.OUTPUTS: 128}
    assert found.stationary is Operand.OUTPUTS


def test_a_common_bandwidth_is_no_port_of_the_array():
    target = load_target("ethos-u55-128")
    npu, memories = target.engines["npu"], target.memories
    behind = next(memory for name, memory in memories.items() if name != "sram")
    assert TileMachine.of(npu, memories["sram"], behind, WorkKind.CONVOLUTION, room=1000).ports == ()
