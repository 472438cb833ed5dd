"""Parts whose inside a link does not show: which tensor leaves them, and faults in them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.parity import Inputs, Recording, compare_links
from bitwright.quant.parity.joining import join
from bitwright.quant.parity.link import LinkTensor
from bitwright.quant.parity.opaque import join_opaque
from bitwright.quant.parity.torch_links import CapturedLink


class Network(nn.Module):
    """Several tensors of one shape, one of them twice (the dropout changes nothing)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.head, self.drop = nn.Linear(4, 3), nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.cumsum(x, 0) + self.drop(torch.tanh(self.second(x)))
        return self.head(torch.sigmoid(self.third(x)).mean((2, 3)))


class Delegating:
    """A captured network of which only what leaves some parts is shown, under names that say nothing."""

    name, takes_tensors, replaced = "device", False, {}

    def __init__(self, captured: CapturedModel, ends: Mapping[str, tuple[str, ...]]) -> None:
        """Args: each end by its reference's name, with the ends that it reads."""
        self._inside = CapturedLink(captured)
        self._names = {end: f"value {place}" for place, end in enumerate(ends)}
        self._ends = ends

    @property
    def tensors(self) -> Mapping[str, LinkTensor]:
        known = self._inside.tensors
        return {
            self._names[end]: replace(
                known[end], name=self._names[end], op="delegate", rounding=None,
                reads=tuple(self._names[each] for each in reads), is_opaque=True,
            )
            for end, reads in self._ends.items()
        }  # fmt: skip

    def run(self, inputs: Inputs, *, wanted: Any = (), given: Any = None, nudge: bool = False) -> Recording:
        ends = {name: end for end, name in self._names.items()}
        found = self._inside.run(inputs, wanted=[ends[name] for name in wanted], nudge=nudge)
        return Recording(outputs=found.outputs, tensors={name: found.tensors[ends[name]] for name in wanted})


@pytest.fixture(name="made")
def _made() -> tuple[Network, CapturedModel, dict[str, str], Inputs]:
    torch.manual_seed(0)
    network, image = Network().eval(), torch.randn(2, 4, 8, 8)
    captured = capture(network, (image,))
    by_op = {node.op: link for node in captured.graph.nodes for link in CapturedLink(captured).tensors
             if CapturedLink(captured).tensors[link].op == node.op}  # fmt: skip
    return network, captured, by_op, Inputs(args=(image,))


def ends_of(by_op: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    relu, add, head = by_op["relu"], by_op["add"], by_op["linear"]
    return {relu: (), add: (relu,), head: (add,)}


def test_what_leaves_a_part_is_known_by_its_values(made: Any) -> None:
    _, captured, by_op, inputs = made
    reference, device = CapturedLink(captured), Delegating(captured, ends_of(by_op))
    structural = join(reference.tensors, device.tensors)
    assert not structural  # no operator tells
    assert join_opaque(reference, device, structural, inputs) == {
        by_op["relu"]: "value 0", by_op["add"]: "value 1", by_op["linear"]: "value 2",
    }  # fmt: skip
    found = compare_links(reference, device, [inputs])
    assert found.agrees and len(found.layers) == 3


@pytest.mark.parametrize(("layer", "end"), [("first", "relu"), ("second", "add"), ("third", "linear")])
def test_a_fault_is_found_in_its_part_and_nowhere_else(made: Any, layer: str, end: str) -> None:
    """Also in the last part, behind which nothing is left but a result."""
    network, captured, by_op, inputs = made
    with torch.no_grad():
        network.get_submodule(layer).weight[1] *= 1.2
    wrong = capture(network, inputs.args)
    found = compare_links(CapturedLink(captured), Delegating(wrong, ends_of(by_op)), [inputs])
    assert [each.tensor.name for each in found.breaks] == [by_op[end]]


def test_only_tensors_between_the_neighbours_come_into_question(made: Any) -> None:
    """The value of the part is that of a later tensor, which hangs on what is joined already."""
    _, captured, by_op, inputs = made
    reference, device = CapturedLink(captured), Delegating(captured, ends_of(by_op))
    held = {by_op["tanh"]: "value 0"}
    found = join_opaque(reference, device, held, inputs)
    assert found == {by_op["tanh"]: "value 0", by_op["add"]: "value 1", by_op["linear"]: "value 2"}
    nowhere = join_opaque(reference, Delegating(captured, {by_op["linear"]: ()}), {by_op["linear"]: "value 0"}, inputs)
    assert nowhere == {by_op["linear"]: "value 0"}
