import re

import pytest

from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.hw_constraints.target_page import describe


@pytest.mark.parametrize("name", list_targets())
def test_the_page_says_everything_and_numbers_its_sources(name: str) -> None:
    target, page = load_target(name), describe(load_target(name))
    for op in target.operators.quantized | target.operators.shared_qparams | target.operators.refused:
        assert re.search(rf"\b{op}\b", page)
    for constraint in target.constraints:
        assert f"`{constraint.require}`" in page and constraint.because in page
    for owner in (*target.engines.values(), *target.memories.values()):
        assert all(figure.quantity.text in page for figure in owner.figures.values())
    listed = set(re.findall(r"^(\d+)\. ", page, re.MULTILINE))
    assert set(re.findall(r"\[(\d+)\]", page)) == listed == {str(n + 1) for n in range(len(listed))}


def test_what_is_not_verified_is_marked_where_it_stands_and_listed() -> None:
    page = describe(load_target("h200"))
    assert re.search(r"\| hbm  \| bandwidth  \| 4\.8 TB/s +\| \[\d\]\? +\|", page)
    assert re.search(r"- memories\.hbm\.bandwidth = 4\.8 TB/s \[\d\]\?", page)
    assert "Not verified" not in describe(load_target("x86-vnni"))


def test_the_page_in_part() -> None:
    page = describe(load_target("ethos-u85-1024"))
    assert page.startswith("# ethos-u85-1024, version 1\n")
    assert "- Serves: scheme, lint; not: lower, cost\n" in page
    assert (
        "| activations       | int16  | codes -32768 to 32767 | 0           | float32, one per tensor         |" in page
    )
    assert "- max_pool2d: `kernel_h * kernel_w <= 65536 and kernel_h <= 256`\n" in page
    assert "- All others run on the processor beside the accelerator\n" in page
