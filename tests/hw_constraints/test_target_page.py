import re

import pytest

from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.hw_constraints.target_diff import describe_differences, differences
from bitwright.hw_constraints.target_operators_page import Support, describe_operators, support_of
from bitwright.hw_constraints.target_page import describe


def numbers_of(page: str) -> set[str]:
    listed = set(re.findall(r"^(\d+)\. ", page, re.MULTILINE))
    assert set(re.findall(r"\[(\d+)\]", page)) == listed == {str(n + 1) for n in range(len(listed))}
    return listed


@pytest.mark.parametrize("name", list_targets())
def test_the_page_says_everything_and_numbers_its_sources(name: str) -> None:
    target, page = load_target(name), describe(load_target(name))
    for op in target.operators.quantized | target.operators.shared_qparams | target.operators.refused:
        assert re.search(rf"\b{op}\b", page)
    for constraint in target.constraints:
        assert f"`{constraint.require}`" in page and constraint.because in page
    for owner in (*target.engines.values(), *target.memories.values(), *target.links.values()):
        assert owner.name in page and all(figure.quantity.text in page for figure in owner.figures.values())
    for layout in target.layouts.values():
        assert layout.name in page and str(layout) in page
    for reason in target.missing.values():
        assert reason in page
    assert len(numbers_of(page)) == len({source for _, _, source, _ in target.statements()})


@pytest.mark.parametrize("name", list_targets())
def test_no_line_of_the_page_is_left_over(name: str) -> None:
    for page in (describe(load_target(name)), describe_operators(load_target(name))):
        assert "None" not in page and "Quantity(" not in page and "\n\n\n" not in page and page.endswith("\n")


@pytest.mark.parametrize("name", list_targets())
def test_the_operators_page_is_the_predicates(name: str) -> None:
    target, page = load_target(name), describe_operators(load_target(name))
    for constraint in target.constraints:
        assert f"`{constraint.require}`" in page and constraint.suggestion in page
        for op in constraint.operators:
            runs = support_of(target, op) in (Support.QUANTIZED, Support.SHARED)
            assert not runs or re.search(rf"^\| {op} +\| .*\b{constraint.name}\b", page, re.MULTILINE)
    assert f"All other operators: {support_of(target, 'nonzero')}." in page
    numbers_of(page)


@pytest.mark.parametrize("name", list_targets())
def test_a_target_does_not_differ_from_itself(name: str) -> None:
    target = load_target(name)
    assert differences(target, target) == () and "They say the same." in describe_differences(target, target)


def test_a_difference_reads_the_same_from_both_sides() -> None:
    one, other = load_target("ethos-u55-128"), load_target("h200")
    forward = {(each.section, each.what, each.left, each.right) for each in differences(one, other)}
    assert forward == {(each.section, each.what, each.right, each.left) for each in differences(other, one)}


def test_a_difference_in_part() -> None:
    page = describe_differences(load_target("x86-vnni"), load_target("x86-avx2"))
    assert [line for line in page.splitlines() if line.startswith("##")] == ["## Numerics"]
    assert "| weights | int8, codes -128 to 127, 0, float32, one per output channel | int7, codes -64 to 63, " in page
    page = describe_differences(load_target("ethos-u55-128"), load_target("ethos-u85-1024"))
    assert "- div, eq, ge, gt, le, lt, ne: ethos-u55-128 on the host, ethos-u85-1024 in low precision\n" in page
    assert "- only ethos-u55-128, argmax: `channels <= 127 and axis == 1`\n" in page
    assert re.search(r"\| engines.npu.clock +\| 500 MHz +\| 1 GHz +\|", page)
    assert re.search(r"\| memories.sram.size +\| 2 MiB \(not verified\) +\| 384 KiB +\|", page)


def test_what_is_not_verified_is_marked_where_it_stands_and_listed() -> None:
    page = describe(load_target("h200"))
    assert re.search(r"\| hbm +\| bandwidth +\| 4\.8 TB/s +\| \[\d\]\? +\|", page)
    assert re.search(r"- memories\.hbm\.bandwidth = 4\.8 TB/s \[\d\]\?", page)
    assert "Not verified" not in describe(load_target("x86-vnni"))


def test_the_page_in_part() -> None:
    page = describe(load_target("ethos-u85-1024"))
    assert page.startswith("# ethos-u85-1024, version 2\n")
    assert "- Serves: scheme, lint, lower, cost\n" in page
    assert re.search(r"\| npu +\| MACs +\| 1024 MAC/cycle +\| \[\d\] +\|", page)
    assert re.search(r"\| npu +\| peak, all units +\| 2\.048 TOPS +\| derived +\|", page)
    assert (
        "| activations       | int16  | codes -32768 to 32767 | 0           | float32, one per tensor         |" in page
    )
    assert "- max_pool2d: `kernel_h * kernel_w <= 65536 and kernel_h <= 256`\n" in page
    assert "- All others run on the processor beside the accelerator\n" in page


def test_what_is_not_served_is_said_with_the_figure_that_is_not_public() -> None:
    page = describe(load_target("hexagon-htp"))
    assert (
        "- Does not serve cost: the width of the matrix unit, its clock and the bandwidth of VTCM and DRAM are " in page
    )
    assert "for a toolchain that is not public\n" in describe(load_target("tesla-fsd-hw3"))


def test_units_and_chains_are_spelled_once() -> None:
    page = describe(load_target("ethos-u65-512"))
    assert "- npu: 2 x MAC array; runs convolution, depthwise, " in page
    assert re.search(r"\| npu +\| MACs of each +\| 256 MAC/cycle +\|", page)
    assert "conv1d|conv2d|conv_transpose2d -> batch_norm -> relu|hardtanh" in page
