"""Which of Bitwright's own steps changes a network: the capture's, and those that make it easier to quantize."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from bitwright.hw_constraints.target import load_target
from bitwright.quant import capture as capture_module
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.parity import Inputs
from bitwright.quant.parity.halving import broken_links
from bitwright.quant.parity.own_passes import capture_links, preparation_links
from bitwright.quant.preparations import PREPARATIONS


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 4)
        self.register_buffer("offset", torch.linspace(-1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.clamp(self.first(self.norm(x) + self.offset * 2), 0, 6))


@pytest.fixture(name="network")
def _network() -> tuple[Small, tuple[torch.Tensor]]:
    torch.manual_seed(0)
    return Small().eval(), (torch.randn(5, 8),)


def test_each_step_of_the_capture_is_the_network(network: Any) -> None:
    model, args = network
    links = capture_links(model, args)
    assert [link.name.split(" ")[0] for link in links] == ["eager", "exported", "functional", "canonical", "captured"]
    found = broken_links(links, [Inputs(args=args)])
    assert not found.culprits and (found.steps, found.comparisons) == (4, 1)


@pytest.mark.parametrize(
    ("step", "name"), [("functionalize", "functional"), ("canonicalize", "canonical"), ("fold_constants", "captured")]
)
def test_a_step_that_changes_the_network_is_named(
    network: Any, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    """Each is made to write another operator in place of the clamp."""
    model, args = network
    sound = getattr(capture_module, step)

    def wrong(subject: Any) -> Any:
        result = sound(subject)
        graph = subject if result is None else getattr(result, "fx_graph", None) or result.graph
        clamps = (torch.ops.aten.clamp.default, torch.ops.aten.hardtanh.default)
        for node in graph.nodes:
            if node.target in clamps:
                node.args = (node.args[0], 0, 0.1)
        return result

    monkeypatch.setattr(capture_module, step, wrong)
    found = broken_links(capture_links(model, args), [Inputs(args=args)])
    assert [each.name.split(" ")[0] for each in found.culprits] == [name]
    assert found.comparisons <= 5


def test_what_makes_a_network_easier_to_quantize_leaves_its_results(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, args = network
    captured, scheme = capture(model, args), load_target("x86-vnni").scheme()
    batches = [(torch.randn(5, 8),) for _ in range(4)]
    asked = {"preparations": ("smoothquant",), "equalization": True}
    links = preparation_links(captured, scheme, batches, **asked)
    assert [link.name for link in links] == ["captured", "fit_scheme", "smoothquant", "equalization"]
    assert not broken_links(links, [Inputs(args=args)]).culprits

    class Wrong:
        name, samples = "smoothquant", 1

        def prepare(self, network: CapturedModel, scheme: Any, samples: Any) -> CapturedModel:
            return replace(network, values={name: value * 1.01 for name, value in network.values.items()})

    monkeypatch.setattr(type(PREPARATIONS), "load", lambda self, name: Wrong())
    links = preparation_links(captured, scheme, batches, preparations=("smoothquant",))
    found = broken_links(links, [Inputs(args=args)])
    assert [each.name for each in found.culprits] == ["smoothquant"]
