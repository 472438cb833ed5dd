"""Candidates of the user's own network, against eager runs of the largest one with what they lack set to zero."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from bitwright.experiments.benchmarks import architectures, places
from bitwright.experiments.benchmarks.peers.environments import LIBRARY
from bitwright.experiments.extensions import MODELS
from bitwright.nas.elastic import BuiltElastic, Elastic, Shrinkage, inherit, shared_state
from bitwright.nas.elastic.elasticize import Elasticized, elasticize
from bitwright.nas.elastic.parts import named_tensors
from bitwright.nas.moves import largest_candidate, neighbours, random_candidate
from bitwright.nas.space import Candidate
from bitwright.nas.spaces import load_space
from bitwright.quant.errors import InputError

DOUBLE_ROUNDING = 1e-10
EVERYTHING = Shrinkage(width=(0.4, 0.7), depth=(1, 2), kernel=(1, 3), multiple=1)


@contextlib.contextmanager
def zeros(elastic: Elastic, candidate: Candidate) -> Iterator[nn.Module]:
    """The largest network, run eagerly, with zero in every channel and kernel place that the candidate lacks.

    Knows nothing but the shares: each layer's results are multiplied by which of its channels are there, blocks without
    tensors hand on what they get.
    """
    largest, shares = elastic.largest, elastic.shares(candidate)
    whole = dict(largest.named_parameters())
    kept = {each: torch.zeros_like(tensor, dtype=torch.bool) for each, tensor in whole.items()}
    for share in shares.values():
        if share.tensor in kept:
            grid = [torch.arange(size) for size in whole[share.tensor].shape]
            for dimension, taken in share.places.items():
                grid[dimension] = grid[dimension][taken]
            kept[share.tensor][torch.meshgrid(*grid, indexing="ij")] = True
    gone = {each for each, mask in kept.items() if not mask.any()}
    hooks, forwards = [], []
    before = {each: tensor.detach().clone() for each, tensor in whole.items()}
    for path, module in largest.named_modules():
        own = [each for each, _ in module.named_parameters(prefix=path)]
        if own and gone.issuperset(own):
            forwards.append((module, module.forward))
            module.forward = lambda x, *_: x
        elif f"{path}.weight" in kept and not isinstance(module, nn.LayerNorm):
            mask = kept[f"{path}.weight"].flatten(1).any(1) if module.weight.dim() > 1 else kept[f"{path}.weight"]
            axis = -1 if isinstance(module, nn.Linear) else 1
            hooks.append(module.register_forward_hook(lambda _, __, y, mask=mask, axis=axis: masked(y, mask, axis)))
    for each, tensor in whole.items():
        tensor.data.mul_(kept[each])
    try:
        yield largest
    finally:
        for hook in hooks:
            hook.remove()
        for module, _ in forwards:
            del module.forward
        for each, tensor in whole.items():
            tensor.data.copy_(before[each])


def masked(y: torch.Tensor, mask: torch.Tensor, axis: int) -> torch.Tensor:
    shape = [1] * y.dim()
    shape[axis] = -1
    return y * mask.reshape(shape)


def settled(model: nn.Module) -> nn.Module:
    """Batch norms and biases that hide nothing, in double precision."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in named_tensors(model).items():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.data.uniform_(0.5 if "var" in name else -1.0, 1.5, generator=generator)
    return model.double().eval()


def check(elastic: Elastic, candidate: Candidate, x: torch.Tensor) -> None:
    """Real and zeroed agree; it is smaller; a functional call is the same."""
    network = inherit(elastic, candidate)
    with torch.no_grad():
        with zeros(elastic, candidate) as largest:
            wanted = largest(x)
        found = network(x)
        torch.testing.assert_close(found, wanted, rtol=0, atol=DOUBLE_ROUNDING * float(wanted.abs().max()))
        called = functional_call(elastic.network(candidate), shared_state(elastic, candidate), (x,))
        torch.testing.assert_close(called, found, rtol=0, atol=DOUBLE_ROUNDING * float(found.abs().max()))
    own, whole = (sum(each.numel() for each in one.parameters()) for one in (network, elastic.largest))
    assert (own < whole) == (candidate.key != largest_candidate(elastic.space).key)


class Conv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """A plain, inverted, grouped or gated residual block."""

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        inner = 2 * channels
        middle = {
            "plain": [Conv(channels, inner, 5)],
            "inverted": [Conv(channels, inner, 1), Conv(inner, inner, 5, groups=inner)],
            "grouped": [Conv(channels, inner, 1), Conv(inner, inner, 3, groups=2)],
            "gated": [Conv(channels, inner, 3)],
        }[kind]
        self.layers = nn.Sequential(*middle)
        self.gate = nn.Conv2d(inner, inner, 1) if kind == "gated" else None
        self.project = nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        return x + self.project(y)


class Dense(nn.Module):
    """Concatenation, then half of the channels each as value and gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grow, self.mix = Conv(channels, channels), nn.Conv2d(2 * channels, 2 * channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.mix(torch.cat([x, self.grow(x)], 1)).chunk(2, 1)
        return value * torch.sigmoid(gate)


class Heads(nn.Module):
    """Attention over places, residual, its queries, keys and values packed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads, self.size = 3, 4
        self.qkv, self.out = nn.Linear(channels, 36), nn.Linear(12, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        batch, count, _ = tokens.shape
        q, k, v = self.qkv(tokens).reshape(batch, count, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, -1)
        return x + self.out(y).transpose(1, 2).reshape(x.shape)


class Network(nn.Module):
    def __init__(self, stages: list[tuple[str, int, int]], *, dense: bool, heads: bool) -> None:
        super().__init__()
        self.stem = Conv(3, 6)
        self.stages = nn.ModuleList()
        inputs = 6
        for kind, channels, depth in stages:
            blocks = [Residual(kind, channels) for _ in range(depth)]
            self.stages.append(nn.Sequential(Conv(inputs, channels, 3, stride=2), *blocks))
            inputs = channels
        self.dense = Dense(inputs) if dense else nn.Identity()
        self.attention = Heads(inputs) if heads else nn.Identity()
        self.head = nn.Linear(inputs, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(self.attention(self.dense(x)).mean((2, 3)))


PICTURE = torch.randn(2, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))
KINDS = ("plain", "inverted", "grouped", "gated")
STAGES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from([4, 6, 8]), st.integers(1, 3)), min_size=1, max_size=2
)


def random_network(stages: list[tuple[str, int, int]], dense: bool, heads: bool, seed: int) -> None:
    torch.manual_seed(seed)
    model = settled(Network(stages, dense=dense, heads=heads))
    with torch.no_grad():
        before = model(PICTURE)
    elastic = elasticize(model, (PICTURE,), EVERYTHING)
    with torch.no_grad():
        torch.testing.assert_close(model(PICTURE), before, rtol=0, atol=0)
        after = elastic.largest(PICTURE)  # channels sorted: the same sums in another order
        torch.testing.assert_close(after, before, rtol=0, atol=DOUBLE_ROUNDING * float(before.abs().max()))
    rng = np.random.default_rng(seed)
    for candidate in (largest_candidate(elastic.space), *(random_candidate(elastic.space, rng) for _ in range(3))):
        check(elastic, candidate, PICTURE)


def test_a_network_of_every_connection() -> None:
    random_network([("inverted", 4, 2), ("grouped", 6, 1)], dense=True, heads=True, seed=0)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(STAGES, st.booleans(), st.booleans(), st.integers(0, 100))
def test_random_networks(stages: list[tuple[str, int, int]], dense: bool, heads: bool, seed: int) -> None:
    random_network(stages, dense, heads, seed)


@pytest.fixture(scope="module")
def elastic() -> Elasticized:
    torch.manual_seed(0)
    stages = [("plain", 4, 3), ("gated", 6, 1)]
    return elasticize(settled(Network(stages, dense=False, heads=True)), (PICTURE,), EVERYTHING)


def test_decisions_are_channels_runs_of_blocks_and_kernels(elastic: Elasticized) -> None:
    choices = {each.name: each.choices for each in elastic.space.parameters}
    assert choices["depth.stages.0"] == (1, 2, 3)
    assert choices["width.stem.0"] == (0.4, 0.7, 1.0)
    assert choices["kernel.stages.0.1.layers.0.0"] == (1, 3, 5)
    assert choices["kernel.stem.0"] == (1, 3)
    # Three heads: 0.4 of them is one, 0.7 is two.
    assert choices["width.attention.qkv"] == (0.4, 0.7, 1.0)
    assert elastic.refused["head.weight"] == "stay: the network returns them"
    assert elastic.refused["stages.1"] == "changes the shape [2, 4, 4, 4] to [2, 6, 2, 2]"


def test_decisions_about_absent_blocks_mean_nothing(elastic: Elasticized) -> None:
    largest = largest_candidate(elastic.space)
    shallow = Candidate(elastic.space.canonical({**largest.values, "depth.stages.0": 2}))
    other = elastic.space.canonical({**shallow.values, "kernel.stages.0.3.layers.0.0": 5})
    assert Candidate(other).key == shallow.key
    assert Candidate(elastic.space.canonical({**other, "depth.stages.0": 3})).key != largest.key
    assert not any(name.startswith("stages.0.3.") for name in elastic.shares(shallow))
    assert all(near.key != shallow.key for near in neighbours(elastic.space, shallow))


def test_the_largest_candidate_is_the_largest_network(elastic: Elasticized) -> None:
    own, whole = named_tensors(inherit(elastic, largest_candidate(elastic.space))), named_tensors(elastic.largest)
    assert own.keys() == whole.keys() and all(torch.equal(own[each], whole[each]) for each in own)


def test_a_smaller_width_keeps_the_longest_filters(elastic: Elasticized) -> None:
    filters = elastic.largest.get_parameter("stages.0.1.layers.0.0.weight").detach().square().sum((1, 2, 3))
    assert (filters.diff() <= 0).all()
    candidate = Candidate({**largest_candidate(elastic.space).values, "width.stages.0.1.layers.0.0": 0.4})
    (places_,) = elastic.shares(candidate)["stages.0.1.layers.0.0.weight"].places.values()
    assert places_ == slice(0, 3)


def test_the_product_s_own_proof_agrees(elastic: Elasticized, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = random_candidate(elastic.space, np.random.default_rng(3))
    assert elastic.difference(candidate, (PICTURE,)) == ""
    other = random_candidate(elastic.space, np.random.default_rng(4))
    wrong = inherit(elastic, other)
    monkeypatch.setattr("bitwright.nas.elastic.cut.cut_out", lambda *_: wrong)
    assert "the smaller network differs by" in elastic.difference(candidate, (PICTURE,))


def test_channels_of_a_builder_s_networks_stay_in_their_parts_of_a_concatenation() -> None:
    """A convolution behind a concatenation reads the first channels of each part, not the first of all."""
    kind, model = load_space("mobile_conv"), MODELS.load("mobile_segmenter")
    space = kind.build(kind.settings(width=(0.5, 1.0)))
    picture = torch.randn(1, 3, 16, 16, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    built = BuiltElastic(
        space, lambda chosen: settled(model.build(model.settings(depth=1, **chosen))), example=(picture,)
    )
    built.sort()
    half = Candidate({"width": 0.5})
    assert built.shares(half)["mix.0.weight"].places[0].tolist() == [*range(24), *range(48, 72)]
    check(built, half, picture)


def test_what_is_kept_stays_and_stretches_are_decided_together() -> None:
    model = settled(Network([("plain", 4, 2), ("plain", 8, 2)], dense=False, heads=False))
    asked = Shrinkage(width=(0.5,), kernel=(3,), multiple=1, stages=2, keep=("stem*", "stages.0.*"))
    elastic = elasticize(model, (PICTURE,), asked)
    assert [each.name for each in elastic.space.parameters] == ["width.0", "width.1", "kernel.0", "kernel.1"]
    least = Candidate({each.name: each.choices[0] for each in elastic.space.parameters})
    assert inherit(elastic, least).stem[0].out_channels == 6
    check(elastic, least, PICTURE)


class Stubborn(nn.Module):
    """A size as a constant, an even kernel, a padding that is not the kernel's, blocks that are no residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.even, self.padded = nn.Conv2d(3, 4, 2), nn.Conv2d(4, 4, 3)
        self.chain = nn.Sequential(Conv(4, 4), Conv(4, 4))
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.adaptive_avg_pool2d(self.chain(self.padded(self.even(x))), 2).reshape(-1, 16))


def test_what_cannot_shrink_has_its_reason() -> None:
    elastic = elasticize(settled(Stubborn()), (PICTURE,), EVERYTHING)
    assert elastic.refused["even"] == "kernel [2, 2] has no centre"
    assert elastic.refused["padded"] == "pads by (0, 0); the size only stays with (1, 1)"
    assert elastic.refused["chain.0"].startswith("returns channels of its own")
    assert "mat1 and mat2 shapes cannot be multiplied" in elastic.refused["width.chain.1.0"]
    names = [each.name for each in elastic.space.parameters]
    assert names == ["width.even", "width.padded", "width.chain.0.0", "kernel.chain.0.0", "kernel.chain.1.0"]


def test_a_network_that_cannot_shrink_is_refused() -> None:
    with pytest.raises(InputError, match=r"nothing of the network can shrink: weight: stay: the network returns them"):
        elasticize(nn.Linear(4, 2).double(), (torch.randn(1, 4).double(),), EVERYTHING)
    for wrong, message in (
        ({}, "nothing may shrink; give choices for width, depth or kernel"),
        ({"width": (1.5,)}, r"width = \(1.5,\); give 0 < share <= 1"),
        ({"kernel": (4,)}, r"kernel = \(4,\); give odd sides"),
    ):
        with pytest.raises(InputError, match=message):
            Shrinkage(**wrong)


def test_a_recipe_s_space_of_that_kind() -> None:
    kind = load_space("elastic")
    assert kind.of_model is not None
    with pytest.raises(InputError, match="elastic follows from the network"):
        kind.build(kind.settings(width=(0.5,)))
    asked = kind.settings(width=(0.5,), multiple=2, formats=("int8", "int16"), stages=2, blocks="stages")
    model = settled(Network([("plain", 4, 1), ("plain", 4, 1)], dense=False, heads=False))
    found = kind.of_model(asked, model, (PICTURE,))
    formats = found.space.formats(largest_candidate(found.space), model)
    assert formats == {"stages.0": "int8", "stages.1": "int8"}
    for wrong, message in (
        (
            {"blocks": "blocks"},
            r"blocks = 'blocks'; the model has no such module, it has .*stages.*; name the one whose ",
        ),
        ({"stages": 3}, r"the model has 2 blocks in 'stages'; stages = 3 cannot be more$"),
    ):
        with pytest.raises(InputError, match=message):
            kind.of_model(asked.model_copy(update=wrong), model, (PICTURE,))


@pytest.fixture(scope="module")
def library() -> Path:
    folder = places.peers_home() / LIBRARY
    if not (folder / "torchvision").is_dir() or not (folder / "timm").is_dir():
        pytest.skip("needs torchvision and timm: python -m bitwright.experiments.benchmarks.setup_peers")
    return folder


# What each has to offer at least, counted from its paper: decisions about channels (inner ones of blocks and residual
# streams, squeezed ones, heads), runs of blocks of one size, kernels beyond 3x3 (ResNet-18: the stem).
PUBLIC = {
    "resnet18": (12, 4, 1),
    "mobilenet_v3_small": (27, 4, 8),
    "deit_tiny_patch16_224": (25, 1, 0),
    "regnety_002": (10, 2, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_public_architectures(name: str, library: Path) -> None:
    (architecture,) = (each for each in architectures.ARCHITECTURES if each.name == name)
    model, args = architectures.build(architecture, library)
    settled(model)
    inputs: tuple[Any, ...] = tuple(arg.double() for arg in args)
    elastic = elasticize(model, inputs, Shrinkage(width=(0.5, 0.75), depth=(1, 2, 3, 6, 9), kernel=(3, 5)))
    counts = [
        sum(each.name.startswith(what) for each in elastic.space.parameters) for what in ("width", "depth", "kern")
    ]
    assert all(found >= least for found, least in zip(counts, PUBLIC[name], strict=True)), (counts, elastic.refused)
    for seed in range(2):
        candidate = random_candidate(elastic.space, np.random.default_rng(seed))
        assert elastic.difference(candidate, inputs) == ""
        called = functional_call(elastic.network(candidate).eval(), shared_state(elastic, candidate), inputs)
        torch.testing.assert_close(called, inherit(elastic, candidate)(*inputs))
