"""Rows that calibrated are told apart by their contents and left out of batches of any form."""

import pytest
import torch
from torch import nn

from bitwright.experiments.held_out import HeldOut, row_hashes, select_rows
from bitwright.experiments.inputs import arguments_of
from bitwright.quant.errors import InputError

ROWS = torch.arange(12.0).reshape(4, 3)


def test_equal_rows_have_equal_hashes_and_others_do_not() -> None:
    hashes = row_hashes((ROWS, ROWS.to(torch.int64)))
    assert len(set(hashes)) == 4
    assert row_hashes((ROWS[[2]], ROWS.to(torch.int64)[[2]])) == hashes[2:3]
    assert row_hashes((ROWS.transpose(0, 1).contiguous().transpose(0, 1), ROWS.to(torch.int64))) == hashes


def test_rows_are_taken_out_of_nested_batches() -> None:
    batch = {"image": ROWS, "names": ["a", "b", "c", "d"], "pair": (ROWS[:, 0], [ROWS]), "scale": torch.tensor(2.0)}
    few = select_rows(batch, [1, 3], 4)
    assert torch.equal(few["image"], ROWS[[1, 3]]) and few["names"] == ["b", "d"]
    assert torch.equal(few["pair"][0], ROWS[[1, 3], 0]) and torch.equal(few["pair"][1][0], ROWS[[1, 3]])
    assert few["scale"] == 2.0


def test_only_what_did_not_calibrate_passes() -> None:
    read = arguments_of(nn.Identity(), None)
    batches = [(ROWS, torch.tensor([0, 1, 2, 3])), (ROWS + 100, torch.tensor([4, 5, 6, 7]))]
    passed = list(HeldOut(batches, read, frozenset(row_hashes((ROWS[:3],)))))
    assert [each[1].tolist() for each in passed] == [[3], [4, 5, 6, 7]]
    message = r"^data: all 4 samples to score are among those that calibrate; return a dict with the keys calibrate "
    with pytest.raises(InputError, match=message):
        list(HeldOut(batches[:1], read, frozenset(row_hashes((ROWS,)))))
