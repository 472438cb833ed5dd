from typing import Any

import pytest
import torch

from bitwright.experiments.inputs import CountedSamples, arguments_of, first_rows, row_count
from bitwright.quant.errors import InputError


class TwoInputs(torch.nn.Module):
    def forward(self, image: torch.Tensor, pose: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return image.sum() + pose.sum() * scale


X, Y = torch.zeros(4, 3), torch.ones(4, 2)
LABELS = torch.zeros(4, dtype=torch.int64)
READ = arguments_of(TwoInputs(), None)


@pytest.mark.parametrize(
    ("batch", "arguments"),
    [
        (X, (X,)),
        ((X, LABELS), (X,)),
        ([X, LABELS], (X,)),
        (((X, Y), LABELS), (X, Y)),
        ({"pose": Y, "image": X, "label": LABELS}, (X, Y)),
        (({"pose": Y, "image": X}, LABELS), (X, Y)),
        ({"image": X, "label": LABELS}, (X,)),
    ],
    ids=["tensor", "pair", "list", "nested tuple", "dict", "nested dict", "dict without optional part"],
)
def test_batches_of_many_forms(batch: Any, arguments: tuple[torch.Tensor, ...]) -> None:
    found = READ(batch)
    assert len(found) == len(arguments)
    assert all(a is b for a, b in zip(found, arguments, strict=True))


def test_named_parts() -> None:
    assert arguments_of(TwoInputs(), ["b", "a"])({"a": X, "b": Y, "c": LABELS}) == (Y, X)
    assert arguments_of(TwoInputs(), [1])((X, Y)) == (Y,)


@pytest.mark.parametrize(
    ("inputs", "batch", "message"),
    [
        (["c"], {"a": X, "b": Y}, r"^data.inputs = 'c': a batch \(dict\) has \['a', 'b'\]$"),
        ([2], (X, Y), r"^data.inputs = 2: a batch \(tuple\) has 2 parts$"),
        (
            None,
            {"img": X},
            r"^data: a batch has the keys \['img'\], the model's forward takes \['image', 'pose', 'scale'\]; ",
        ),
        (None, {"pose": X}, r"^data: a batch has the keys \['pose'\]"),
        (None, 3, r"^data: a batch is int; expected a tensor, a tuple, a list or a dict$"),
    ],
)
def test_batches_that_do_not_fit(inputs: Any, batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        arguments_of(TwoInputs(), inputs)(batch)


def test_first_rows() -> None:
    x, nested = first_rows((X, {"pose": Y}), 1)
    assert x.shape == (1, 3) and nested["pose"].shape == (1, 2)
    anchors = torch.zeros(7, 2)
    assert first_rows((X, anchors), 1) == (X, anchors)  # no common first dimension: nothing to cut
    with pytest.raises(InputError, match=r"^example_inputs.batch = 9: the loader's first batch has 4 rows$"):
        first_rows((X,), 9)


def test_samples_are_counted_as_they_pass() -> None:
    counted = CountedSamples([(X,), (X[:1],)])
    assert len(list(counted)) == 2 and counted.count == 5


def test_row_count_of_what_shares_no_rows() -> None:
    assert row_count((torch.tensor(3.0),)) == 1
    assert row_count((torch.zeros(4), torch.zeros(5))) == 1
