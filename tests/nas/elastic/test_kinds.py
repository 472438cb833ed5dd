"""What every family of networks with shared weights has to keep, for each that is shipped."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from bitwright.experiments.extensions import MODELS
from bitwright.nas.elastic import inherit, shared_state
from bitwright.nas.elastic.built import BuiltElastic
from bitwright.nas.elastic.parts import named_tensors
from bitwright.nas.fingerprint import network_hash
from bitwright.nas.moves import largest_candidate, random_candidate
from bitwright.nas.space import Candidate, Value
from bitwright.nas.spaces import load_space
from bitwright.quant.capture import capture


@dataclass(frozen=True, kw_only=True)
class Family:
    """A space with the model that its candidates are."""

    space: str
    choices: Mapping[str, Any]
    model: str
    settings: Mapping[str, Any]
    side: int = 16

    def build(self, architecture: Mapping[str, Value]) -> nn.Module:
        kind = MODELS.load(self.model)
        model: nn.Module = kind.build(kind.settings(**{**self.settings, **architecture}))
        return model.eval()


CONV = {"width": (0.5, 1.0), "depth": (1, 2), "kernel": (3, 5), "expansion": (2, 3), "se": (False, True)}
FAMILIES = {
    "mobile by stage": Family(
        space="elastic_conv",
        choices={**CONV, "activation": ("relu6", "hardswish"), "resolution": (16, 24), "formats": ("int8", "int16")},
        model="elastic_conv",
        settings={"family": "mobile"},
    ),
    "residual by block": Family(
        space="elastic_conv",
        choices={**CONV, "expansion": (0.5, 1), "per": "block", "sparsity": ("dense", "2:4")},
        model="elastic_conv",
        settings={"family": "residual"},
    ),
    "pyramid": Family(
        space="elastic_neck",
        choices={"width": (0.5, 1), "neck_width": (0.5, 1), "neck_depth": (0, 1, 2), "neck_kernel": (3, 5)},
        model="elastic_segmenter",
        settings={"neck": "fpn", "depth": 1},
    ),
    "bird's-eye view": Family(
        space="elastic_neck",
        choices={"depth": (1, 2), "neck_level_width": (0.5, 1), "neck_depth": (0, 1), "neck_kernel": (3, 5)},
        model="elastic_segmenter",
        settings={"neck": "bev"},
    ),
    "transformer": Family(
        space="elastic_transformer",
        choices={"depth": (2, 3, 4), "width": (32, 48), "tokens": (0.5, 1), "heads": (1, 2), "mlp": (1, 2)},
        model="elastic_transformer",
        settings={"head_size": 8, "size": 16},
    ),
    "mobile as a whole": Family(
        space="mobile_conv",
        choices={"width": (0.5, 1.0), "depth": (1, 2), "expansion": (2, 4)},
        model="mobile_segmenter",
        settings={},
    ),
}


@cache
def elastic_of(name: str) -> BuiltElastic:
    family = FAMILIES[name]
    kind = load_space(family.space)
    torch.manual_seed(0)
    elastic = BuiltElastic(
        kind.build(kind.settings(**family.choices)),
        family.build,
        example=(torch.randn(1, 3, family.side, family.side),),
    )
    give_statistics(elastic.largest)
    return elastic


def give_statistics(network: nn.Module) -> None:
    """Batch norms that are not their own identity, biases that are not zero."""
    for name, tensor in named_tensors(network).items():
        if name.endswith(("running_mean", "bias")):
            tensor.data.normal_(std=0.2)
        elif name.endswith("running_var"):
            tensor.data.uniform_(0.5, 2)
        elif tensor.is_floating_point() and tensor.dim() == 1:
            tensor.data.uniform_(0.5, 1.5)


def drawn(name: str, seed: int) -> Candidate:
    return random_candidate(elastic_of(name).space, np.random.default_rng(seed))


def pictures(name: str) -> torch.Tensor:
    return torch.randn(2, 3, FAMILIES[name].side, FAMILIES[name].side, generator=torch.Generator().manual_seed(1))


FAST = ("residual by block", "bird's-eye view", "transformer")
every_family = pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)


@every_family
def test_the_largest_candidate_is_the_largest_network_bit_for_bit(name: str) -> None:
    elastic = elastic_of(name)
    largest, x = largest_candidate(elastic.space), pictures(name)
    assert all(not share.places for share in elastic.shares(largest).values())
    own, whole = named_tensors(inherit(elastic, largest)), named_tensors(elastic.largest)
    assert own.keys() == whole.keys()
    assert all(torch.equal(own[each], whole[each]) for each in own)
    with torch.no_grad():
        assert torch.equal(inherit(elastic, largest)(x), elastic.largest(x))


@every_family
def test_an_inherited_network_is_the_functional_call(name: str) -> None:
    elastic, candidate, x = elastic_of(name), drawn(name, 2), pictures(name)
    alone = inherit(elastic, candidate)
    with torch.no_grad():
        called = functional_call(elastic.network(candidate).eval(), shared_state(elastic, candidate), (x,))
        assert torch.equal(alone(x), called)
    before = elastic.largest.state_dict()
    copies = {each: value.clone() for each, value in before.items()}
    for tensor in named_tensors(alone).values():
        tensor.data.zero_()
    assert all(torch.equal(value, copies[each]) for each, value in elastic.largest.state_dict().items())


@every_family
def test_gradients_reach_exactly_the_shared_parts(name: str) -> None:
    """Those of the network that stands alone, at the places where its tensors lie, and none elsewhere."""
    elastic, candidate, x = elastic_of(name), drawn(name, 1), pictures(name)
    alone = inherit(elastic, candidate)
    alone(x).square().sum().backward()
    elastic.largest.zero_grad()
    functional_call(elastic.network(candidate).eval(), shared_state(elastic, candidate), (x,)).square().sum().backward()
    whole = dict(elastic.largest.named_parameters())
    wanted = {each: torch.zeros_like(tensor) for each, tensor in whole.items()}
    for own, tensor in alone.named_parameters():
        share = elastic.shares(candidate)[own]
        grid = [torch.arange(size) for size in whole[share.tensor].shape]
        for dimension, places in share.places.items():
            grid[dimension] = grid[dimension][places]
        assert tensor.grad is not None
        wanted[share.tensor][torch.meshgrid(*grid, indexing="ij")] = tensor.grad
    for each, tensor in whole.items():
        found = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        outside = wanted[each] == 0
        assert not found[outside].any(), each
        # The same sums over views of other strides: 2^6 roundings of the largest gradient.
        rounding = 64 * torch.finfo(torch.float32).eps * float(wanted[each].abs().max())
        torch.testing.assert_close(found, wanted[each], rtol=0, atol=rounding, msg=each)


@every_family
def test_statistics_of_a_training_forward_stay_with_the_candidate(name: str) -> None:
    elastic, candidate, x = elastic_of(name), drawn(name, 0), pictures(name)
    before = {each: buffer.clone() for each, buffer in elastic.largest.named_buffers()}
    state = shared_state(elastic, candidate)
    copies = {each: state[each].clone() for each, _ in elastic.network(candidate).named_buffers()}
    functional_call(elastic.network(candidate).train(), state, (x,))
    assert all(torch.equal(buffer, before[each]) for each, buffer in elastic.largest.named_buffers())
    moved = [each for each, buffer in copies.items() if each.endswith("running_mean")]
    assert all(not torch.equal(copies[each], state[each]) for each in moved)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_one_network_has_one_hash(name: str) -> None:
    """Decisions that the space calls meaningless change nothing that would run, and no others are called so."""
    from bitwright.hw_constraints.target import load_target
    from bitwright.quant.plan import plan

    elastic, target = elastic_of(name), load_target("x86-vnni")
    space, x = elastic.space, pictures(name)[:1]
    candidate = drawn(name, 3)
    hashes = {}
    for values in [dict(candidate.values), *changed(space, candidate)]:
        network = FAMILIES[name].build({each: values[each] for each in space.architecture(candidate)})
        graph = capture(network, (x,)).graph
        hashes[Candidate(space.canonical(values)).key, network_hash(graph, plan(graph, target.scheme()))] = values
    assert len({key for key, _ in hashes}) == len({network for _, network in hashes}) == len(hashes)


def changed(space: Any, candidate: Candidate) -> list[dict[str, Value]]:
    """Each of a few decisions of the architecture changed, whether it means something or not."""
    rng, result = np.random.default_rng(0), []
    names = list(space.architecture(candidate))
    for name in rng.permutation(names)[:4]:
        parameter = next(each for each in space.parameters if each.name == name)
        other = next(each for each in parameter.choices if each != candidate.values[name])
        result.append({**candidate.values, str(name): other})
    return result
