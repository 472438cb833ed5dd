"""Samples that rounding keeps: what comes back from disk is what went in."""

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import Keywords
from bitwright.quant.reconstruct.store import KeptSamples, Pieces


@pytest.mark.parametrize("limit", [1 << 20, 0, 100], ids=["in memory", "on disk", "both"])
def test_samples_come_back(limit: int) -> None:
    batch = torch.randn(3, 4)
    given = [(batch[i : i + 1], 2, Keywords(mask=torch.tensor([bool(i)]))) for i in range(3)]
    kept = KeptSamples(limit)
    for each in given:
        kept.append(each)
    assert len(kept) == 3
    for found, (x, count, named) in zip([*kept[:2], kept[2]], given, strict=True):
        assert torch.equal(found[0], x)
        assert found[1] == count
        assert isinstance(found[2], Keywords)
        assert torch.equal(found[2]["mask"], named["mask"])


def test_what_lies_on_disk_is_the_sample_and_not_its_batch() -> None:
    kept, batch = KeptSamples(0), torch.zeros(64, 1000)
    kept.append((batch[:1],))
    assert kept[0][0].untyped_storage().nbytes() == 4 * 1000


@pytest.mark.parametrize("ahead", [(), (3,), (2, 4), (99,)])
def test_every_piece_comes_once_in_its_turn_whatever_was_read_ahead(ahead: tuple[int, ...]) -> None:
    captured = capture(nn.Linear(3, 2), (torch.zeros(2, 3),))
    batches = [torch.randn(4, 3), torch.randn(2, 3), torch.randn(4, 3)]
    cut = torch.cat(batches).split(2)
    pieces = Pieces(captured, iter(batches))
    for count in ahead:
        assert all(torch.equal(x, want) for (x,), want in zip(pieces.first(count), cut[:count], strict=True))
    found = list(pieces)
    assert [number for number, _ in found] == [0, 0, 1, 2, 2]
    assert all(torch.equal(x, want) for (_, (x,)), want in zip(found, cut, strict=True))
    assert len(pieces.first(1)) == (1 if ahead else 0)  # what has passed is gone, unless it was kept
