"""Samples that rounding keeps: what comes back from disk is what went in."""

import pytest
import torch

from bitwright.quant.captured_model import Keywords
from bitwright.quant.reconstruct.store import KeptSamples


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
