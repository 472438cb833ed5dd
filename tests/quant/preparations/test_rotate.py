"""Rotations: orthogonal, flat where they can be, and only where queries and keys meet without anything between."""

import pytest
import scipy.stats
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.preparations.heads import find_head_pairs
from bitwright.quant.preparations.learn_rotations import kurtosis, learned
from bitwright.quant.preparations.rotate import random_rotation


class Attention(nn.Module):
    """Three heads of four; `turned` puts an operator that is no move between keys and product."""

    def __init__(self, *, turned: bool = False, shared: bool = False) -> None:
        super().__init__()
        self.turned, self.shared = turned, shared
        self.query, self.value = nn.Linear(6, 12), nn.Linear(6, 12, bias=False)
        self.key, self.mix = nn.Linear(6, 12), nn.Linear(12, 6)

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, 5, 3, 4).permute(0, 2, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key = self.key(x)
        value = key if self.shared else self.value(x)
        key = torch.tanh(key) if self.turned else key
        scores = self.heads(self.query(x)) @ self.heads(key).transpose(2, 3)
        return self.mix((torch.softmax(scores, -1) @ self.heads(value)).permute(0, 2, 1, 3).reshape(1, 5, 12))


def pairs_of(network: nn.Module) -> list[tuple[str, str]]:
    captured = capture(network.eval(), (torch.zeros(1, 5, 6),))
    names = {name: str(ref) for ref, name in captured.value_refs.items()}
    return [(names[pair.first[0]], names[pair.second[0]]) for pair in find_head_pairs(captured)]


@pytest.mark.parametrize("size", [1, 4, 6, 32])
def test_rotations_are_orthogonal_and_flat_where_a_hadamard_matrix_exists(size: int) -> None:
    rotation = random_rotation(size, torch.Generator().manual_seed(3))
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(size, dtype=torch.float64))
    if size != 6:
        torch.testing.assert_close(rotation.abs(), torch.full_like(rotation, size**-0.5))


def test_heads_are_found_with_their_channels() -> None:
    captured = capture(Attention().eval(), (torch.zeros(1, 5, 6),))
    scores, values = find_head_pairs(captured)
    assert [len(pair.first) for pair in (scores, values)] == [2, 1]  # values have no bias
    assert (scores.reads, values.reads) == (False, True)
    heads = tuple(tuple(range(start, start + 4)) for start in (0, 4, 8))
    assert scores.blocks == values.blocks == tuple(zip(heads, heads, strict=True))


def test_what_is_no_move_ends_the_search() -> None:
    assert pairs_of(Attention()) == [("query.weight", "key.weight"), ("value.weight", "mix.weight")]
    assert pairs_of(Attention(turned=True)) == [("value.weight", "mix.weight")]


def test_a_layer_that_others_read_is_left_alone() -> None:
    assert pairs_of(Attention(shared=True)) == []


@pytest.mark.parametrize("size", [4, 6])
def test_a_learned_rotation_is_orthogonal_and_has_fewer_outliers_than_where_it_began(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, size, generator=generator, dtype=torch.float64)
    rows[:, :2] = 20.0 * rows[:, :1]  # alike, so that a Hadamard matrix leaves them loud in half the channels
    start = random_rotation(size, generator)
    found = learned([rows], start)
    torch.testing.assert_close(found @ found.T, torch.eye(size, dtype=torch.float64))
    assert float(kurtosis(rows @ found)) < 0.98 * float(kurtosis(rows @ start)) < float(kurtosis(rows))


def test_kurtosis_is_scipys() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    values -= values.mean()
    assert float(kurtosis(values)) == pytest.approx(scipy.stats.kurtosis(values.numpy(), fisher=False))
    assert float(kurtosis(torch.zeros(3))) == 0.0
