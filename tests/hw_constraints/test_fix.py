"""Fixes together: to a fixpoint, each step checked, and nothing done that was not asked for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.hw_constraints.fix import fix
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.parity import Inputs

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Several(nn.Module):
    """A wide activation, a layout round trip with something useless in it, and a pool that is too large."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = F.relu(F.relu(x)).permute(0, 3, 1, 2)
        return self.head(F.max_pool2d(x, 13, 1, 6))


def test_fixes_compose() -> None:
    captured = capture(Several(), (IMAGE,))
    fixed = fix(captured, load_target("ethos-u85-1024"))
    assert {each.fix for each in fixed.applied} == {"drop_no_effect", "merge_transposes", "split_pool"}
    ops = [node.op for node in fixed.captured.graph.nodes]
    assert ops == ["conv2d", "relu", "max_pool2d", "max_pool2d", "max_pool2d", "conv2d"]
    assert fixed.parity is not None and fixed.parity.is_exact
    assert len(fixed.after) < len(fixed.before)


def test_a_fixed_network_has_nothing_left_to_fix() -> None:
    target = load_target("ethos-u85-1024")
    fixed = fix(capture(Several(), (IMAGE,)), target)
    again = fix(fixed.captured, target)
    assert not again.applied and again.captured is fixed.captured and again.parity is None


def test_the_network_that_was_given_stays_as_it_was() -> None:
    captured = capture(Several(), (IMAGE,))
    before, nodes = captured.run(IMAGE), len(captured.graph.nodes)
    fix(captured, load_target("ethos-u85-1024"))
    assert torch.equal(captured.run(IMAGE), before) and len(list(captured.graph.nodes)) == nodes


def test_results_keep_their_names() -> None:
    captured = capture(Several(), (IMAGE,))
    fixed = fix(captured, load_target("ethos-u85-1024"))
    assert fixed.captured.graph.outputs == captured.graph.outputs
    gone = set(captured.graph.producers) - set(fixed.captured.graph.producers)
    stands_for = set(fixed.captured.replaced.values())
    assert stands_for <= set(fixed.captured.graph.tensors) and set(fixed.captured.replaced) <= gone


class Gelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(F.gelu(self.a(x)))


def test_an_approximation_is_only_made_when_asked_for_and_says_its_error() -> None:
    captured, target = capture(Gelu(), (IMAGE,)), load_target("edge-tpu")
    kept = fix(captured, target, fixes=["approximate_activation"])
    assert not kept.applied and "it is an approximation" in kept.refused[0].reason
    made = fix(captured, target, fixes=["approximate_activation"], approximate=True)
    (applied,) = made.applied
    assert not applied.exact
    x = torch.linspace(-4, 4, 1001)
    worst = (x * torch.sigmoid(1.702 * x) - F.gelu(x)).abs().max().item()  # 0.0203 (Hendrycks and Gimpel)
    assert 0 < applied.here[0].max_abs <= worst * 1.001


def test_an_unknown_fix_lists_the_choices() -> None:
    with pytest.raises(InputError, match=r"unknown fix 'split_pol'.*did you mean 'split_pool'"):
        fix(capture(Gelu(), (IMAGE,)), load_target("edge-tpu"), fixes=["split_pol"])


class TwoInverses(nn.Module):
    """Of poses, and of matrices that are no rigid transforms."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor, pose: torch.Tensor, scaled: torch.Tensor) -> torch.Tensor:
        return self.a(x @ torch.inverse(pose) @ torch.inverse(scaled))


def test_each_place_is_fixed_in_the_first_of_the_ways_that_computes_the_same() -> None:
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, :3, 3] = torch.tensor([1.0, -2.0, 0.5])
    args = (torch.ones(2, 5, 4), pose, 2.0 * torch.eye(4).repeat(2, 1, 1) + 0.1)
    captured = capture(TwoInverses(), args)
    fixed = fix(captured, load_target("tensorrt-orin"), recorded=[Inputs(args=args)], fixes=["closed_form_inverse"])
    assert not fixed.refused and len(fixed.applied) == 2
    assert ["R, t =" in each.diff for each in fixed.applied] == [True, False]  # the rigid one alone, by turning back
    torch.testing.assert_close(fixed.captured.run(*args), captured.run(*args), rtol=1e-5, atol=1e-5)
