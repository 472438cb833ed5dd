"""Groups of small networks, counted by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.quant.capture import capture
from bitwright.quant.channel_graph import ChannelGraph, channel_graph
from bitwright.quant.channel_strands import reshaped, slab_axis


class Lambda(nn.Module):
    def __init__(self, forward: Callable[..., torch.Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.does = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.does(self, x)


def graph_of(model: nn.Module, *args: torch.Tensor) -> ChannelGraph:
    return channel_graph(capture(model, args).graph)


def sizes(found: ChannelGraph) -> dict[str, int]:
    return {group.name: len(group.units) for group in found.groups}


IMAGE = torch.randn(1, 3, 8, 8)


def test_a_chain_takes_its_batch_norm_along() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
    found = graph_of(model, IMAGE)
    assert sizes(found) == {"0": 6}
    axes = {(ref.module_path, axis) for ref, axis in found.groups[0].axes}
    assert axes == {
        *((f"0.{name}", 0) for name in ("weight", "bias")),
        *((f"1.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")),
        ("3.weight", 1),
    }
    assert found.kept[next(ref for ref in found.kept)] == "the network returns them"


def test_an_addition_ties_what_it_adds() -> None:
    model = Lambda(
        lambda m, x: m.head(F.relu(m.one(x) + m.two(x))),
        one=nn.Conv2d(3, 6, 1), two=nn.Conv2d(3, 6, 1), head=nn.Conv2d(6, 2, 1),
    )  # fmt: skip
    found = graph_of(model, IMAGE)
    assert sizes(found) == {"one": 6}
    assert {ref.module_path for ref, axis in found.groups[0].axes if axis == 0} >= {"one.weight", "two.weight"}


def test_an_addition_to_the_input_keeps_channels() -> None:
    found = graph_of(Lambda(lambda m, x: m.head(m.one(x) + x), one=nn.Conv2d(3, 3, 1), head=nn.Conv2d(3, 2, 1)), IMAGE)
    assert not found.groups
    assert any("cannot change" in reason for reason in found.kept.values())


def test_a_concatenation_keeps_its_parts_apart() -> None:
    model = Lambda(
        lambda m, x: m.head(torch.cat([m.one(x), x, m.two(x)], dim=1)),
        one=nn.Conv2d(3, 6, 1), two=nn.Conv2d(3, 5, 1), head=nn.Conv2d(14, 2, 1),
    )  # fmt: skip
    found = graph_of(model, IMAGE)
    assert sizes(found) == {"one": 6, "two": 5}
    cuts = found.without([found.group("two").units[1]])
    assert cuts[next(ref for ref in cuts if ref.module_path == "head.weight")][1].tolist() == [*range(10), 11, 12, 13]


def test_a_class_token_shrinks_with_its_patches() -> None:
    """Expanded to a batch of one it is still the parameter, and no constant that was computed from it."""

    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        token = model.tokens[0].expand(x.shape[0], -1, -1)
        return model.head(torch.cat([token, model.one(x)], dim=1).mean(1))

    model = Lambda(forward, one=nn.Linear(3, 6), tokens=nn.ParameterList([torch.randn(1, 1, 6)]), head=nn.Linear(6, 2))
    assert sizes(graph_of(model, torch.randn(1, 4, 3))) == {"one": 6}


def test_halves_lose_the_same_places() -> None:
    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        left, right = model.one(x).chunk(2, dim=1)
        return model.head(left) + model.other(right)

    model = Lambda(forward, one=nn.Conv2d(3, 8, 1), head=nn.Conv2d(4, 2, 1), other=nn.Conv2d(4, 2, 1))
    assert sizes(graph_of(model, IMAGE)) == {"one": 4}


def test_a_depthwise_filter_goes_with_its_channel_and_groups_stay_of_one_size() -> None:
    depthwise = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 2, 1))
    assert sizes(graph_of(depthwise, IMAGE)) == {"0": 6}
    grouped = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 10, 3, groups=2), nn.Conv2d(10, 2, 1))
    assert sizes(graph_of(grouped, IMAGE)) == {"0": 3, "1": 5}


def test_flattened_places_go_together() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, 5))
    found = graph_of(model, IMAGE)
    assert sizes(found) == {"0": 6}
    cuts = found.without(found.groups[0].units[1:])
    assert cuts[next(ref for ref in cuts if ref.module_path == "3.weight")][1].tolist() == [0, 1, 2, 3]


def attend(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    q, k, v = model.qkv(x).reshape(1, 5, 3, 4, 2).permute(2, 0, 3, 1, 4).unbind(0)
    weights = (q @ k.transpose(-2, -1) * 0.7).softmax(dim=-1)
    return model.out((weights @ v).transpose(1, 2).reshape(1, 5, 8))


def attend_fused(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    q, k, v = (part.reshape(1, 5, 4, 2).transpose(1, 2) for part in model.qkv(x).chunk(3, dim=-1))
    return model.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("forward", [attend, attend_fused])
def test_heads_of_attention_are_units(forward: Callable[..., torch.Tensor]) -> None:
    model = Lambda(forward, qkv=nn.Linear(6, 24), out=nn.Linear(8, 3))
    found = graph_of(model, torch.randn(1, 5, 6))
    assert sizes(found) == {"qkv": 4}
    cuts = found.without(found.groups[0].units[:1])
    kept = {ref.module_path: index for ref, axes in cuts.items() for index in axes.values()}
    assert kept["qkv.weight"].tolist() == [*range(2, 8), *range(10, 16), *range(18, 24)]
    assert kept["out.weight"].tolist() == list(range(2, 8))


def test_a_layer_norm_is_said_to_change_the_others() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    (group,) = graph_of(model, torch.randn(1, 5, 6)).groups
    assert len(group.units) == 8
    assert group.inexact.startswith("layer_norm")


def test_an_embedding_shrinks_by_the_size_of_its_vectors() -> None:
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 3))
    found = graph_of(model, torch.tensor([[1, 2, 3]]))
    assert sizes(found) == {"0": 6}
    assert {(ref.module_path, axis) for ref, axis in found.groups[0].axes} == {("0.weight", 1), ("1.weight", 1)}


def test_an_operator_that_is_not_known_lets_nothing_go() -> None:
    model = Lambda(lambda m, x: m.head(torch.cumsum(m.one(x), 1)), one=nn.Conv2d(3, 6, 1), head=nn.Conv2d(6, 2, 1))
    found = graph_of(model, IMAGE)
    assert not found.groups
    assert any(reason.startswith("cumsum") and "not known" in reason for reason in found.kept.values())


def test_a_layer_called_twice_has_the_same_channels_each_time() -> None:
    model = Lambda(
        lambda m, x: m.head(m.twice(F.relu(m.twice(m.stem(x))))),
        stem=nn.Conv2d(3, 6, 1), twice=nn.Conv2d(6, 6, 1), head=nn.Conv2d(6, 2, 1),
    )  # fmt: skip
    assert sizes(graph_of(model, IMAGE)) == {"stem": 6}


def test_shapes_of_the_smaller_network_are_those_of_capturing_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(216, 5))
    small = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(144, 5))
    found = graph_of(model, IMAGE)
    smaller = found.smaller(found.groups[0].units[:2])
    captured = capture(small, (IMAGE,)).graph
    assert {ref: info.shape for ref, info in smaller.tensors.items()} == {
        ref: info.shape for ref, info in captured.tensors.items()
    }
    assert [smaller.macs(node) for node in smaller.nodes] == [captured.macs(node) for node in captured.nodes]


def test_permuted_units_take_all_their_places_along() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 2))
    found = graph_of(model, IMAGE)
    cuts = found.permuted(found.groups[0], [2, 0, 1])
    kept = {ref.module_path: index for ref, axes in cuts.items() for index in axes.values()}
    assert kept["0.weight"].tolist() == [2, 0, 1]
    assert kept["3.weight"].tolist() == [8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7]


def test_reshaping_follows_torch() -> None:
    ids = np.arange(12).reshape(1, 12, 1)
    there = reshaped(ids, (2, 12, 5), (2, 3, 4, 5))
    assert there is not None
    assert (there == np.arange(12).reshape(1, 3, 4, 1)).all()
    assert slab_axis(there) is None
    back = reshaped(there, (2, 3, 4, 5), (2, 12, 5))
    assert back is not None
    assert (back == ids).all()
    assert reshaped(ids, (2, 12, 5), (24, 5)) is not None
