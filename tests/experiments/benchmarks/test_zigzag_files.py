import yaml

from bitwright.experiments.benchmarks.rows.zigzag_array import HARDWARE, MAPPING, TARGET
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_hardware import Loop


def test_both_files_describe_one_machine():
    hardware, mapping = (yaml.safe_load(file.read_text()) for file in (HARDWARE, MAPPING))
    target = load_target(TARGET)
    npu, memories, described = target.engines["npu"], target.memories, hardware["memories"]
    rows, columns = hardware["operational_array"]["sizes"]
    assert npu.array.unroll == {Loop.OUT_CHANNELS: rows, Loop.IN_CHANNELS: columns}
    assert mapping[0]["spatial_mapping"] == {"D1": [f"K, {rows}"], "D2": [f"C, {columns}"]}
    units = rows * columns
    assert memories["sram"].size_bytes * 8 == described["buffer"]["size"]
    assert memories["weight_registers"].size_bytes * 8 == described["weight_registers"]["size"] * units
    clock = npu.clock_hz
    assert 8 * memories["dram"].bytes_per_second(clock) / clock == described["dram"]["ports"][0]["bandwidth_max"]
    for port in described["buffer"]["ports"]:
        assert 8 * memories["sram"].figures["activations_bandwidth"].value == port["bandwidth_max"]
