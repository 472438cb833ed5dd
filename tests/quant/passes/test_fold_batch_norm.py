from collections.abc import Callable

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm


def lively(norm: nn.Module) -> nn.Module:
    """Statistics and parameters far from those of a fresh batch norm."""
    with torch.no_grad():
        for name, tensor in norm.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2.0) if "var" in name else tensor.normal_()
    return norm


LAYERS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "conv1d": lambda: (nn.Sequential(nn.Conv1d(3, 4, 3), lively(nn.BatchNorm1d(4))), torch.randn(2, 3, 9)),
    "conv2d": lambda: (nn.Sequential(nn.Conv2d(3, 4, 3), lively(nn.BatchNorm2d(4))), torch.randn(2, 3, 9, 9)),
    "conv2d without bias": lambda: (
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), lively(nn.BatchNorm2d(4, eps=1e-3))),
        torch.randn(2, 3, 9, 9),
    ),
    "grouped": lambda: (
        nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), lively(nn.BatchNorm2d(8))),
        torch.randn(2, 4, 9, 9),
    ),
    "conv3d": lambda: (nn.Sequential(nn.Conv3d(3, 4, 2), lively(nn.BatchNorm3d(4))), torch.randn(2, 3, 5, 5, 5)),
    "linear": lambda: (nn.Sequential(nn.Linear(3, 4), lively(nn.BatchNorm1d(4))), torch.randn(5, 3)),
    "not affine": lambda: (
        nn.Sequential(nn.Conv2d(3, 4, 3), lively(nn.BatchNorm2d(4, affine=False))),
        torch.randn(2, 3, 9, 9),
    ),
    "transposed": lambda: (
        nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2), lively(nn.BatchNorm2d(4))),
        torch.randn(2, 3, 5, 5),
    ),
    "transposed without bias": lambda: (
        nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2, bias=False), lively(nn.BatchNorm2d(4))),
        torch.randn(2, 3, 5, 5),
    ),
    "transposed in groups": lambda: (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, groups=2), lively(nn.BatchNorm2d(6))),
        torch.randn(2, 4, 5, 5),
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_folded_network_computes_the_same(layer: str) -> None:
    model, x = LAYERS[layer]()
    captured = capture(model, (x,))
    folded = fold_batch_norm(captured)
    assert [node.op for node in folded.graph.nodes] == [captured.graph.nodes[0].op]
    torch.testing.assert_close(folded.run(x), captured.run(x), rtol=1e-4, atol=1e-5)
    # The norm's result is now the layer's.
    norm, kept = captured.graph.nodes[1].outputs[0], folded.graph.nodes[0].outputs[0]
    assert dict(folded.replaced) == {norm: kept}


class NotFoldable(nn.Module):
    def __init__(self, case: str) -> None:
        super().__init__()
        self.case = case
        self.conv, self.norm = nn.Conv2d(4, 4, 1), lively(nn.BatchNorm2d(4))
        self.linear, self.norm1d = nn.Linear(4, 4), lively(nn.BatchNorm1d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if self.case == "read twice":
            y = self.conv(x)
            return self.norm(y) + y
        if self.case == "a result":
            y = self.conv(x)
            return self.norm(y), y
        if self.case == "shared layer":
            return self.norm(self.conv(x)) + self.conv(x * 2)
        if self.case == "behind an activation":
            return self.norm(torch.relu(self.conv(x)))
        return self.norm1d(self.linear(x[0]))  # channels of a rank-3 linear lie last, those of the norm in the middle


CASES = ["read twice", "a result", "shared layer", "behind an activation", "linear of rank 3"]


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_folded_stays(case: str) -> None:
    model, x = NotFoldable(case).eval(), torch.randn(1, 4, 4, 4)
    folded = fold_batch_norm(capture(model, (x,)))
    assert "batch_norm" in [node.op for node in folded.graph.nodes]
    with torch.no_grad():
        torch.testing.assert_close(folded.run(x), model(x))


def test_the_captured_network_itself_stays_as_it_was() -> None:
    model, x = LAYERS["conv2d"]()
    captured = capture(model, (x,))
    before = captured.run(x)
    fold_batch_norm(captured)
    assert torch.equal(captured.run(x), before)
    assert len(captured.graph.nodes) == 2


def test_each_call_of_a_shared_norm_is_folded_into_its_own_layer() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), lively(nn.BatchNorm2d(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.a(x)) + self.norm(self.b(x))

    model, x = Shared().eval(), torch.randn(1, 4, 4, 4)
    folded = fold_batch_norm(capture(model, (x,)))
    assert [node.op for node in folded.graph.nodes] == ["conv2d", "conv2d", "add"]
    with torch.no_grad():
        torch.testing.assert_close(folded.run(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_that_runs_several_times_is_folded_when_the_same_norm_follows_each_run(bias: bool) -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 3, bias=bias), lively(nn.BatchNorm2d(4))

        def forward(self, large: torch.Tensor, small: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.norm(self.conv(level)).relu() for level in (large, small))

    model, levels = Head().eval(), (torch.randn(1, 4, 8, 8), torch.randn(1, 4, 5, 5))
    folded = fold_batch_norm(capture(model, levels))
    assert [node.op for node in folded.graph.nodes] == ["conv2d", "relu"] * 2
    with torch.no_grad():
        torch.testing.assert_close(folded.run(*levels), model(*levels), rtol=1e-4, atol=1e-5)


def test_a_layer_that_runs_several_times_stays_when_its_norms_differ() -> None:
    class Switchable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(4, 4, 3), lively(nn.BatchNorm2d(4)), lively(nn.BatchNorm2d(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(self.conv(x)) + self.b(self.conv(x * 2))

    model, x = Switchable().eval(), torch.randn(1, 4, 8, 8)
    folded = fold_batch_norm(capture(model, (x,)))
    assert [node.op for node in folded.graph.nodes].count("batch_norm") == 2
    with torch.no_grad():
        torch.testing.assert_close(folded.run(x), model(x))


def test_a_norm_that_shifts_nothing_leaves_a_layer_without_bias() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).eval(), torch.randn(1, 3, 8, 8)
    folded = fold_batch_norm(capture(model, (x,)))
    (layer,) = folded.graph.nodes
    assert layer.inputs[2:] in ((), (None,))
    with torch.no_grad():
        torch.testing.assert_close(folded.run(x), model(x), rtol=1e-4, atol=1e-5)


class Branches(nn.Module):
    """A norm behind a concatenation of two convolutions; a third part may be no layer's, or read elsewhere as well."""

    def __init__(self, case: str = "") -> None:
        super().__init__()
        self.case = case
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(3, 2, 1)
        self.norm, self.pool = lively(nn.BatchNorm2d(9 if case == "input" else 6)), nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        a, b = self.pool(self.a(x)), self.pool(self.b(x))
        y = self.norm(torch.cat([a, b, self.pool(x)] if self.case == "input" else [a, b], 1)).relu()
        return (y, b) if self.case == "read" else y


@pytest.mark.parametrize("case", ["", "input", "read"])
def test_a_norm_behind_a_concatenation_goes_into_all_of_its_layers_or_none(case: str) -> None:
    model, x = Branches(case).eval(), torch.randn(2, 3, 6, 6)
    captured = capture(model, (x,))
    folded = fold_batch_norm(captured)
    assert ("batch_norm" in [node.op for node in folded.graph.nodes]) == bool(case)
    with torch.no_grad():
        torch.testing.assert_close(folded.run(x), model(x), rtol=1e-4, atol=1e-5)
    if not case:
        norm = next(node for node in captured.graph.nodes if node.op == "batch_norm")
        assert folded.replaced[norm.outputs[0]] == next(n for n in folded.graph.nodes if n.op == "cat").outputs[0]
