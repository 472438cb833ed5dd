"""Detection: labels, loss and average precision against values worked out by hand and by brute force."""

import numpy as np
import pytest
import torch

from bitwright.experiments.datasets import Split
from bitwright.experiments.datasets.digit_scenes import CELL, Settings, open_digit_scenes
from bitwright.experiments.detection import (
    Found,
    average_precision,
    detection_distillation,
    detection_loss,
    find,
    overlap,
    score,
    truth,
)


@pytest.fixture(scope="module")
def scenes() -> tuple[torch.Tensor, torch.Tensor]:
    data = open_digit_scenes(Settings(scenes=16))
    images, labels = next(iter(data.loader(Split.TRAIN, 16, None)))
    return images, labels


def perfect(labels: torch.Tensor) -> torch.Tensor:
    """The output of a network that knows the labels."""
    scores = torch.zeros(len(labels), 11, *labels.shape[2:]).scatter_(1, labels[:, :1].long(), 20.0)
    return torch.cat([scores, labels[:, 1:]], dim=1)


def test_boxes_hold_the_ink_and_nothing_else(scenes: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = scenes
    count = 0
    for image, found in zip(images, truth(labels), strict=True):
        ink = image[0] > -0.5
        covered = torch.zeros_like(ink)
        for box in (found.corners * CELL).round().int().tolist():
            covered[box[1] : box[3], box[0] : box[2]] = True
            # The ink touches all four sides of its box.
            inside = ink[box[1] : box[3], box[0] : box[2]]
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            count += 1
        assert not (ink & ~covered).any()
    assert count > 30


def test_scenes_come_again_and_those_scored_hold_other_digits() -> None:
    data = open_digit_scenes(Settings(scenes=8))
    first, again = (next(iter(data.loader(Split.TRAIN, 8, 3))) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    trained, scored = (next(iter(data.loader(split, 8, None)))[0] for split in (Split.TRAIN, Split.EVALUATE))
    assert not torch.equal(trained, scored)


def test_a_network_that_knows_finds_everything(scenes: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = scenes
    output = perfect(labels)
    assert score(lambda _: output, [(images, labels)]) == {"ap50": pytest.approx(100.0)}
    assert float(detection_loss(output, labels)) < 1e-4
    shifted = output.clone()
    shifted[:, -4] += 4.0  # half a picture to the right
    assert score(lambda _: shifted, [(images, labels)])["ap50"] < 10.0
    assert float(detection_loss(shifted, labels)) > 0.5
    assert float(detection_distillation(output, output)) == pytest.approx(0.0, abs=1e-5)
    assert float(detection_distillation(shifted, output)) > 0.5


def test_overlap_is_that_of_counted_squares() -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 6, (12, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 6, (12, 2))], 1)
    grids = [np.zeros((12, 12), bool) for _ in boxes]
    for grid, (x0, y0, x1, y1) in zip(grids, boxes, strict=True):
        grid[y0:y1, x0:x1] = True
    wanted = [[(a & b).sum() / (a | b).sum() for b in grids] for a in grids]
    found = overlap(torch.from_numpy(boxes).float(), torch.from_numpy(boxes).float())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_average_precision_by_hand() -> None:
    square = torch.tensor([[0.0, 0.0, 2.0, 2.0], [4.0, 4.0, 6.0, 6.0]])
    wanted = [Found(square, torch.tensor([1, 1]), torch.ones(2))]
    # Sure and wrong, then right, then the same again, then right: precisions 1/2 at recall 1/2, 2/4 at recall 1.
    corners = torch.tensor([[8.0, 8.0, 9.0, 9.0], [0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1], [4.0, 4.0, 6.0, 6.0]])
    found = [Found(corners, torch.ones(4, dtype=torch.int64), torch.tensor([0.9, 0.8, 0.7, 0.6]))]
    assert average_precision(found, wanted) == pytest.approx(50.0)
    assert average_precision([Found(corners[:0], wanted[0].classes[:0], torch.ones(0))], wanted) == 0.0


def test_the_surest_of_boxes_that_overlap_stays() -> None:
    output = torch.full((1, 7, 4, 4), -9.0)
    output[0, 0] = 5.0
    output[0, -4:] = 0.0
    output[0, 1, 1, 1], output[0, 1, 1, 2] = 9.0, 8.0
    output[0, -4, 1, 2] = -1.0  # the same middle as the cell to its left
    (found,) = find(output)
    assert found.corners.tolist() == [[0.5, 0.5, 1.5, 1.5]] and found.classes.tolist() == [1]
