import pytest

from bitwright.hw_constraints.explore_axes import Axis
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_hardware import Loop
from bitwright.quant.errors import InputError


@pytest.fixture(scope="module")
def target():
    return load_target("tesla-fsd-hw3")


def texts(axis):
    return [setting.text for setting in axis.settings]


def test_a_range_doubles_and_holds_the_own_value(target):
    axis = Axis.parse("memory.sram=1..64MiB", target)
    assert texts(axis) == ["1 MiB", "2 MiB", "4 MiB", "8 MiB", "16 MiB", "32 MiB", "64 MiB"]
    assert axis.own.text == "32 MiB"
    assert [setting.target.memories["sram"].size_bytes for setting in axis.settings] == [
        count << 20 for count in (1, 2, 4, 8, 16, 32, 64)
    ]


def test_a_range_ends_at_its_upper_end(target):
    assert texts(Axis.parse("sram.size=3..10MiB", target)) == ["3 MiB", "6 MiB", "10 MiB", "32 MiB"]


def test_a_list_is_taken_as_it_is(target):
    axis = Axis.parse("dram.bandwidth=34, 136 GB/s", target)
    assert texts(axis) == ["34 GB/s", "68.2 GB/s", "136 GB/s"]
    assert axis.settings[-1].target.memories["dram"].bytes_per_second() == 136e9


def test_nothing_else_of_the_target_changes(target):
    varied = Axis.parse("memory.sram=1MiB", target).settings[0].target
    assert varied.engines == target.engines
    assert varied.memories["dram"] == target.memories["dram"]
    assert target.memories["sram"].size_bytes == 32 << 20


def test_an_array_changes_its_units_and_forgets_its_rate(target):
    axis = Axis.parse("array=64..128", target)
    assert texts(axis) == ["64x64", "96x96", "128x128"]
    engine = axis.settings[-1].target.engines["npu"]
    assert engine.array.unroll == {Loop.OUT_PIXELS: 128, Loop.OUT_CHANNELS: 128}
    assert engine.macs_per_cycle == 128 * 128
    assert engine.macs_per_second("int8") == engine.count * 128 * 128 * engine.clock_hz


def test_sides_follow_the_files_order_of_loops(target):
    axis = Axis.parse("array=64x128,128x64", target)
    assert [setting.target.engines["npu"].array.unroll[Loop.OUT_PIXELS] for setting in axis.settings] == [64, 128, 96]


def test_a_clock_moves_what_is_counted_in_cycles(target):
    faster = Axis.parse("npu.clock=4GHz", target).settings[-1].target
    assert faster.engines["npu"].macs_per_second("int8") == 2 * 9216 * 4e9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", r"vary = 'x'; expected NAME=LOW\.\.HIGH or NAME=VALUE,VALUE"),
        ("sram.sise=1MiB", r"vary 'sram\.sise': target 'tesla-fsd-hw3' has no such figure.*sram\.size"),
        ("sram.size=3", r"vary sram\.size=3: '3': expected a number, a space and a unit"),
        ("sram.size=3GHz", r"vary sram\.size=3GHz: '3GHz': unit 'GHz' is none of B, kB"),
        ("sram.size=2..1MiB", r"expected LOW\.\.HIGH, the lower one first"),
        ("sram.size=1..2..4MiB", r"expected LOW\.\.HIGH, the lower one first"),
        ("array=3y", r"vary array=3y: '3y' is no side; expected such as 64 or 64x128"),
        ("array=64..32", r"vary array=64\.\.32: expected LOW\.\.HIGH, single sides, the lower one first"),
    ],
)
def test_what_cannot_be_varied_is_said(target, text, message):
    with pytest.raises(InputError, match=message):
        Axis.parse(text, target)


def test_a_target_without_an_array_says_so():
    with pytest.raises(InputError, match="vary 'array': target 'h200' describes no array"):
        Axis.parse("array=64", load_target("h200"))
