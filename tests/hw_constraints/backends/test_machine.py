"""Reading the processor."""

import math
from dataclasses import replace

import pytest

from bitwright.hw_constraints.machine import load_average, parse_cpuinfo, this_machine, usable_cpus
from bitwright.hw_constraints.measure.conditions import pinned

EPYC = (
    "processor\t: 0\nmodel name\t: AMD EPYC 7763\nflags\t\t: fpu ssse3 avx avx2 fma\n\nprocessor\t: 1\nflags\t: none\n"
)
SAPPHIRE = "model name : Intel(R) Xeon(R) Platinum 8481C\nflags : avx2 avx512f avx512_vnni amx_int8\n"
GRAVITON = "processor : 0\nFeatures : fp asimd asimddp i8mm bf16\n"


def test_the_first_processor_is_described():
    assert parse_cpuinfo(EPYC) == ("AMD EPYC 7763", frozenset({"ssse3", "avx", "avx2", "fma"}))
    assert parse_cpuinfo(GRAVITON)[1] == frozenset({"asimd", "asimddp", "i8mm", "bf16"})


@pytest.mark.parametrize(
    ("text", "architecture", "saturates"),
    [(EPYC, "x86_64", True), (SAPPHIRE, "x86_64", False), (GRAVITON, "aarch64", False), ("", "aarch64", False)],
)
def test_only_x86_without_a_dot_product_saturates(text, architecture, saturates):
    machine = replace(this_machine(), isa=parse_cpuinfo(text)[1], architecture=architecture)
    assert machine.saturates_u8s8 == saturates


def test_this_machine_is_described():
    machine = this_machine()
    assert machine.cores >= len(usable_cpus()) >= 1
    assert machine.to_json()["isa"] == sorted(machine.isa)
    assert math.isnan(load_average()) or load_average() >= 0


def test_pinning_does_not_change_what_the_machine_is():
    this_machine.cache_clear()
    with pinned(1):
        within = this_machine()
    this_machine.cache_clear()
    assert within == this_machine()
