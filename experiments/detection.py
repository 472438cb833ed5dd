"""A dense detection head: its loss, what it finds, and how good that is.

The head's output is float [N, classes + 4, H, W]: in each cell a logit for each class (class 0: nothing has its middle
here) and a box, `(x, y)` of its middle from the cell's corner and `(log w, log h)`, in cells. Labels are float
[N, 5, H, W]: the class, and the box where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from bitwright.qat.distillation import box_loss, distillation_loss

_BOX = 4
# Cells without a middle are about a hundred times as many as those with one; so many of them weigh as much as one.
_BACKGROUND = 0.1
_LEAST_SCORE = 0.05
_SAME = 0.5  # intersection over union from which a box is found (PASCAL VOC), and from which two are one


def detection_loss(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of classes and smooth L1 of boxes where there is one, a scalar."""
    scores, boxes = output[:, :-_BOX], output[:, -_BOX:]
    classes = labels[:, 0].long()
    weight = torch.full((scores.shape[1],), 1.0, device=scores.device)
    weight[0] = _BACKGROUND
    return F.cross_entropy(scores, classes, weight=weight) + box_loss(boxes, labels[:, 1:], (classes > 0).float())


def detection_distillation(output: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Divergence of classes in each cell, and boxes where the teacher sees something."""
    confidence = 1.0 - teacher[:, :-_BOX].softmax(1)[:, 0]
    classes = distillation_loss(output[:, :-_BOX], teacher[:, :-_BOX])
    return classes / confidence.mean().clamp(min=1e-3) + box_loss(output[:, -_BOX:], teacher[:, -_BOX:], confidence)


@dataclass(frozen=True)
class Found:
    """Boxes of one picture: `corners` float [n, 4] as x0, y0, x1, y1 in cells, `classes` int64 [n], `scores` [n]."""

    corners: torch.Tensor
    classes: torch.Tensor
    scores: torch.Tensor


def find(output: torch.Tensor) -> list[Found]:
    """Decodes a batch; of boxes of one class that overlap by half, the surest stays."""
    probabilities = output[:, :-_BOX].softmax(1)
    scores, classes = probabilities[:, 1:].max(1)
    results = []
    for score, kind, boxes in zip(scores, classes + 1, output[:, -_BOX:], strict=True):
        row, column = torch.nonzero(score > _LEAST_SCORE, as_tuple=True)
        corners = to_corners(boxes[:, row, column].T, row, column)
        found = Found(corners, kind[row, column], score[row, column])
        results.append(_surest(found))
    return results


def truth(labels: torch.Tensor) -> list[Found]:
    """The boxes of the labels."""
    results = []
    for each in labels:
        row, column = torch.nonzero(each[0] > 0, as_tuple=True)
        classes = each[0, row, column].long()
        results.append(Found(to_corners(each[1:, row, column].T, row, column), classes, torch.ones(len(row))))
    return results


def to_corners(boxes: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Boxes [n, 4] of cells to corners [n, 4]."""
    middle = boxes[:, :2] + torch.stack([column, row], 1)
    half = boxes[:, 2:].clamp(max=6.0).exp() / 2
    return torch.cat([middle - half, middle + half], 1)


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union of corners [n, 4] and [m, 4]: [n, m]."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clamp(min=0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (a, b)]
    return common / (areas[0][:, None] + areas[1][None] - common).clamp(min=1e-9)


def _surest(found: Found) -> Found:
    order = found.scores.argsort(descending=True)
    alike = overlap(found.corners, found.corners) > _SAME
    alike &= found.classes[:, None] == found.classes[None]
    kept: list[int] = []
    for index in order.tolist():
        if not any(alike[index, other] for other in kept):
            kept.append(index)
    return Found(found.corners[kept], found.classes[kept], found.scores[kept])


def average_precision(found: list[Found], wanted: list[Found]) -> float:
    """Mean over classes of the area under precision over recall, in percent.

    PASCAL VOC 2010 (Everingham et al. 2010, section 4.2): precision made monotonous, every point counted; a box is
    right when it overlaps a box of its class that none surer has taken by half or more.
    """
    classes = sorted({int(each) for boxes in wanted for each in boxes.classes})
    areas = [_area(found, wanted, each) for each in classes]
    return 100.0 * sum(areas) / max(1, len(areas))


def _area(found: list[Found], wanted: list[Found], kind: int) -> float:
    right: list[tuple[float, bool]] = []
    for ours, theirs in zip(found, wanted, strict=True):
        mine, real = ours.classes == kind, theirs.classes == kind
        overlaps = overlap(ours.corners[mine], theirs.corners[real])
        taken: set[int] = set()
        scores = ours.scores[mine]
        for index in scores.argsort(descending=True).tolist():
            best = int(overlaps[index].argmax()) if overlaps.shape[1] else -1
            hit = best >= 0 and float(overlaps[index, best]) >= _SAME and best not in taken
            taken |= {best} if hit else set()
            right.append((float(scores[index]), hit))
    total = sum(int((each.classes == kind).sum()) for each in wanted)
    hits = torch.tensor([hit for _, hit in sorted(right, reverse=True)], dtype=torch.float64).cumsum(0)
    if not len(hits):
        return 0.0
    recall, precision = hits / total, hits / torch.arange(1, len(hits) + 1)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    return float((torch.diff(recall, prepend=torch.zeros(1, dtype=torch.float64)) * envelope).sum())


def score(network: Callable[[torch.Tensor], torch.Tensor], batches: Iterable[Any]) -> dict[str, float]:
    """For `evaluate.entry`: the mean average precision of a network that takes pictures."""
    found, wanted = list[Found](), list[Found]()
    for images, labels in batches:
        with torch.no_grad():
            found += find(network(images))
        wanted += truth(labels)
    return {"ap50": average_precision(found, wanted)}
