"""Regions: what is captured of a network that cannot be captured whole, with what it was called, and what stays."""

import copy
import inspect
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.regions import MAX_SHAPES, Regions, find_regions

X = torch.randn(1, 3, 16, 16)


def block(inp: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inp, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class Gate(nn.Module):
    """Cannot be captured, but its children can."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = block(8, 8)

    def forward(self, x: torch.Tensor, *, gain: float = 1.0) -> torch.Tensor:
        if x.mean() > 1e6:
            return x
        return self.inner(x) * gain


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.gates = block(3, 8), nn.ModuleList([Gate(), Gate()])
        self.head = nn.Linear(8, 4)
        self.register_buffer("frames", torch.zeros((), dtype=torch.int64))
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor, options: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        self.frames += 1
        self.seen.append(image)
        x = self.backbone(image)
        for gate in self.gates:
            x = gate(x, gain=options["gain"])
        pooled = x.mean((2, 3))
        count = int((pooled > 0).sum().item())
        return self.head(pooled), F.dropout(pooled, 0.5)[:, :count]


@pytest.fixture(scope="module")
def found() -> Regions:
    torch.manual_seed(0)
    return find_regions(Model().train(), (X, {"gain": 2.0}))


def test_a_model_that_is_captured_whole_is_one_region() -> None:
    found = find_regions(block(3, 8), (X,))
    (region,) = found.regions
    assert (region.name, region.module_path, region.calls) == ("", "", 1)
    assert found.is_whole
    assert found.failures == ()
    assert found.mac_share == found.parameter_share == 1.0


def test_the_largest_submodules_are_captured(found: Regions) -> None:
    assert [region.name for region in found.regions] == ["backbone", "gates.0.inner", "gates.1.inner", "head"]
    assert [(each.module_path, each.module_type) for each in found.eager] == [
        ("", "Model"),
        ("gates.0", "Gate"),
        ("gates.1", "Gate"),
    ]
    assert not found.is_whole


def test_what_stays_eager_says_why_on_the_users_own_lines(found: Regions) -> None:
    whole, gate, _ = found.eager
    assert "if x.mean() > 1e6:" in [each.source.text for each in whole.failures if each.source]
    assert "count = int((pooled > 0).sum().item())" in [each.source.text for each in whole.failures if each.source]
    (failure,) = gate.failures
    assert failure.source is not None
    assert failure.source.text == "if x.mean() > 1e6:"
    assert failure.data_dependent


def test_multiply_accumulates_and_parameters_are_those_of_the_layers(found: Regions) -> None:
    pixels = 16 * 16
    macs = {"backbone": pixels * 8 * 27, "gates.0.inner": pixels * 8 * 72, "gates.1.inner": pixels * 8 * 72, "head": 32}
    assert {region.name: region.cost.macs for region in found.regions} == macs
    assert found.total.macs == sum(macs.values())
    assert found.mac_share == found.parameter_share == 1.0
    assert 0 < found.time_share <= 1
    for region in found.regions:
        assert sum(region.captured.graph.macs(node) for node in region.captured.graph.nodes) == region.cost.macs


def test_a_region_computes_what_its_module_does_in_the_users_run() -> None:
    torch.manual_seed(0)
    model = Model().eval()
    found = find_regions(model, (X, {"gain": 2.0}))
    for region in found.regions:
        module = model.get_submodule(region.module_path)
        with torch.no_grad():
            expected = module(*copy.deepcopy(region.args), **region.kwargs)
        torch.testing.assert_close(region.captured.run(*region.args, **region.kwargs), expected)
    backbone = model.backbone
    assert torch.equal(found.regions[0].args[0], X)
    with torch.no_grad():
        torch.testing.assert_close(found.regions[1].args[0], backbone(X))


def test_tensors_are_named_by_region(found: Regions) -> None:
    for region in found.regions:
        assert {ref.region for ref in region.captured.graph.tensors} == {region.name}


def test_the_model_is_afterwards_as_it_was() -> None:
    model = Model().train()
    model.backbone.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    attributes = [set(vars(module)) for module in model.modules()]
    image, options, frames = X.clone(), {"gain": 2.0}, model.frames
    random = torch.get_rng_state()
    find_regions(model, (image, options))
    assert torch.equal(random, torch.get_rng_state())
    assert [module.training for module in model.modules()] == modes
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert model.seen == []
    assert model.frames is frames
    assert torch.equal(image, X)
    assert options == {"gain": 2.0}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Levels(nn.Module):
    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels, self.head = levels, nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        if x.sum() > 1e9:
            return []
        return [self.head(part) for level in range(self.levels) for part in [x[:, :, : 16 - level]] * 2]


def test_each_shape_of_a_shared_module_is_a_region_of_its_own() -> None:
    found = find_regions(Levels(3), (X,))
    assert [(region.name, region.calls) for region in found.regions] == [("head", 2), ("head#2", 2), ("head#3", 2)]
    assert {region.module_path for region in found.regions} == {"head"}
    assert found.mac_share == 1.0
    assert found.captured_parameters == found.parameters == 8


def test_a_module_with_a_new_shape_in_every_call_is_refused_by_name() -> None:
    found = find_regions(Levels(MAX_SHAPES + 1), (X,))
    assert found.regions == ()
    assert found.mac_share == 0.0
    (failure,) = found.eager[-1].failures
    assert failure.reason == f"Conv2d is called with {MAX_SHAPES + 1} different shapes in one run"
    assert failure.source is not None
    assert "self.head(part)" in failure.source.text


def test_a_model_that_does_not_run_is_refused_with_its_line() -> None:
    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(7, 11)

    with pytest.raises(
        InputError, match=r"does not run on these arguments: .*invalid for input[\s\S]*reshape\(7, 11\)"
    ):
        find_regions(Wrong(), (X,))


def test_a_model_that_ends_the_process_is_refused_with_its_line() -> None:
    class Exits(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise SystemExit(3)

    line = inspect.getsourcelines(Exits.forward)[1] + 1
    message = f"the model does not run on these arguments: SystemExit: 3\n  {__file__}:{line}: raise SystemExit(3)"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        find_regions(Exits(), (X,))


def test_a_module_that_only_runs_inside_of_a_region_is_counted_once() -> None:
    class Owner(nn.Module):
        def __init__(self, shared: nn.Module) -> None:
            super().__init__()
            self.shared, self.out = shared, nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.shared(x))

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Conv2d(3, 8, 1)
            self.owner = Owner(self.shared)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.owner(x) * x.sum().item() if x.sum() > -1e9 else self.shared(x)

    found = find_regions(Both(), (X,))
    assert [region.name for region in found.regions] == ["owner"]
    assert found.captured_cost.macs == found.total.macs


def test_transformers_and_recurrent_layers_are_counted() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.lstm = nn.LSTM(8, 8, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.encoder(x)
            return self.lstm(y)[0] if y.sum() < 1e9 else y

    found = find_regions(Sequence(), (torch.randn(1, 5, 8),))
    macs = {region.name: region.cost.macs for region in found.regions}
    assert macs["encoder"] == 5 * 8 * (3 * 8 + 8 + 2 * 16) + 2 * 5 * 5 * 8
    assert macs["lstm"] == 5 * 2 * 4 * 8 * 8
    assert capture(Sequence().encoder, (torch.randn(1, 5, 8),)).graph.nodes


def test_a_model_that_is_captured_whole_has_all_of_the_time() -> None:
    """Keeping a large model as it was takes longer than its forward; nobody's time share pays for that."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.zeros(20_000_000))
            self.layer = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    # The best of five: something else may run between the two calls that are timed.
    found = max((find_regions(Large(), (torch.zeros(1, 8),)) for _ in range(5)), key=lambda each: each.time_share)
    assert found.is_whole and found.time_share > 0.2
