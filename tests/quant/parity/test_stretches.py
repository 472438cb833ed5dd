"""Tensors compared a few at a time: the same judgements as all at once, and few of them held."""

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.quant.parity import Recording, compare_links
from bitwright.quant.parity.link import Array, LinkTensor
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.stretches import nearest_reads, stretches
from bitwright.quant.parity.torch_links import CapturedLink, SimulationLink

KIB = 1024


class Watched(SimulationLink):
    """Notes how much it is asked to record at once."""

    most = 0

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        found = super().run(inputs, wanted=wanted, given=given, nudge=nudge)
        self.most = max(self.most, sum(each.nbytes for each in found.tensors.values()))
        return found


@pytest.mark.parametrize("room", [1, 5 * KIB])
def test_a_stretch_at_a_time_says_what_all_at_once_says(chain: Any, rewrite: Any, room: int) -> None:
    broken = chain.planted(lambda m: rewrite(m, "inner.2@0.0.0/scale", lambda old: old * 1.03))
    for path in (chain.quantized_file, broken):
        first, second = SimulationLink(chain.quantized), OnnxRuntimeLink(path)
        whole = compare_links(first, second, chain.inputs)
        parts = compare_links(first, second, chain.inputs, room=room)
        assert [each.tensor.name for each in parts.layers] == [each.tensor.name for each in whole.layers]
        assert [each.agrees for each in parts.layers] == [each.agrees for each in whole.layers]
        assert [each.cumulative_db for each in parts.layers] == [each.cumulative_db for each in whole.layers]
        assert parts.agrees == whole.agrees == (path == chain.quantized_file)


def test_a_link_that_takes_no_tensors_is_compared_in_stretches_too(chain: Any) -> None:
    second = CapturedLink(chain.captured)
    second.takes_tensors = False
    assert compare_links(CapturedLink(chain.captured), second, chain.inputs, room=1).agrees


def test_no_more_is_recorded_at_once_than_a_stretch_and_what_it_reads(chain: Any) -> None:
    sizes = [4 * 3 * 16 * 16, 4 * 8 * 8 * 8]  # the input; a tensor of the first blocks
    link = Watched(chain.quantized)
    compare_links(link, OnnxRuntimeLink(chain.quantized_file), chain.inputs[:1], room=1)
    assert 0 < link.most <= sum(sizes) + sizes[1]


def test_a_stretch_knows_what_its_layers_read_through_tensors_of_one_side_only() -> None:
    def tensor(name: str, *reads: str) -> LinkTensor:
        return LinkTensor(name=name, reads=reads, shape=(256,))

    first = {"a": tensor("a"), "b": tensor("b", "a"), "inner": tensor("inner", "b"), "c": tensor("c", "inner")}
    second = {"A": tensor("A"), "B": tensor("B", "A"), "C": tensor("C", "A")}
    found = stretches(first, second, {"a": "A", "b": "B", "c": "C"}, room=KIB)
    assert [each.names for each in found] == [("a",), ("b",), ("c",)]
    assert [each.known for each in found] == [("a",), ("a", "b"), ("a", "b", "c")]
    assert nearest_reads(first, {"a": "a", "c": "c"})["c"] == ("a",)
