import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.experiments.metrics import Agreement, MeanIoU, Metric, TopOne, create_metric, first_tensor
from bitwright.experiments.scores import paired_interval
from bitwright.quant.errors import InputError


def test_top_one_counts_over_batches() -> None:
    metric = TopOne()
    metric.update(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    metric.update(torch.tensor([[0.1, 0.9]]), torch.tensor([1]))
    assert metric.value() == pytest.approx(100 * 2 / 3)


@given(st.integers(2, 5), st.integers(0, 2**31))
def test_mean_iou_against_sets_of_pixels(classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, 4, 5, generator=generator)
    labels = torch.randint(0, classes + 1, (3, 4, 5), generator=generator)  # `classes` is the ignored label
    metric = MeanIoU(classes, ignore_label=classes)
    for image, truth in zip(logits, labels, strict=True):
        metric.update(image[None], truth[None])
    decided, counted = logits.argmax(1)[labels != classes].numpy(), labels[labels != classes].numpy()
    ratios = []
    for each in range(classes):
        union = np.sum((decided == each) | (counted == each))
        if union:
            ratios.append(np.sum((decided == each) & (counted == each)) / union)
    assert metric.value() == pytest.approx(100 * float(np.mean(ratios)) if ratios else 0.0)


def road(generator: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of 6 pixels that are wrong together, some all wrong and some all right: logits and labels."""
    labels = generator.integers(0, 2, (count, 6))
    wrong = np.where(generator.random((count, 1)) < 0.3, 0.6, 0.05) > generator.random((count, 6))
    decided = np.where(wrong, 1 - labels, labels)
    return torch.nn.functional.one_hot(torch.from_numpy(decided), 2).mT.float(), torch.from_numpy(labels)


@pytest.mark.parametrize("metric", [lambda: MeanIoU(2), lambda: TopOne()], ids=["miou", "top1 of pixels"])
def test_the_interval_over_pictures_covers_the_truth_as_often_as_it_says(metric: Callable[[], Metric]) -> None:
    """200 draws of 60 pictures; a percentile interval of so few is a little short: 88 % at the least."""
    generator = np.random.default_rng(0)
    everything = metric()
    everything.update(*road(generator, 200_000))
    covered = 0
    for _ in range(200):
        drawn = metric()
        for _ in range(2):
            drawn.update(*road(generator, 30))
        interval = drawn.interval()
        assert interval is not None
        assert interval.value == drawn.value()
        covered += interval.contains(everything.value())
    assert 0.88 <= covered / 200 <= 0.985


def test_one_decision_a_sample_has_the_interval_of_counting() -> None:
    metric = TopOne()
    assert metric.interval() is None
    metric.update(torch.tensor([[0.0, 1.0]] * 60), torch.tensor([1] * 54 + [0] * 6))
    interval = metric.interval()
    assert interval is not None
    assert interval.value == 90.0
    assert interval.low == pytest.approx(79.85, abs=0.01)  # 54 of 60: Wilson's interval, Newcombe 1998, method 3


def test_too_few_pictures_have_no_interval() -> None:
    metric = MeanIoU(2)
    metric.update(*road(np.random.default_rng(0), 7))
    assert metric.value() > 0
    assert metric.interval() is None


def test_metrics_that_are_not_there() -> None:
    with pytest.raises(
        InputError, match=r"^evaluate.metric = 'top5'; built in are top1, miou, agreement; others come from evaluate.en"
    ):
        create_metric("top5", classes=10, ignore_label=None)
    with pytest.raises(InputError, match=r"^evaluate.metric = 'miou' needs data with a known number of classes$"):
        create_metric("miou", classes=None, ignore_label=None)


def test_agreement_and_distance() -> None:
    both = Agreement()
    both.update(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[3.0, 3.0], [1.0, 0.0]]))
    assert both.percent == 50.0  # [3, 3] decides for the first of two equal logits
    assert both.sqnr_db == pytest.approx(10 * math.log10(26 / 1))


def test_the_first_tensor_of_nested_outputs() -> None:
    boxes = torch.zeros(1)
    assert first_tensor({"ids": torch.tensor([1]), "boxes": boxes}) is boxes
    with pytest.raises(InputError, match=r"^the model's output \(int\) holds no floating-point tensor$"):
        first_tensor(3)


def hits(right: int, count: int) -> torch.Tensor:
    return torch.arange(count) < right


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_paired_interval_contains_the_difference(a: int, b: int) -> None:
    interval = paired_interval(hits(a, 50), hits(b, 50))
    assert interval.value == pytest.approx(100 * (b - a) / 50)
    assert interval.low < interval.value < interval.high


def test_the_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    """400 experiments with a known difference: 95 % ± 3.3 standard errors of the share."""
    generator, only_reference, only_candidate, covered = np.random.default_rng(0), 0.06, 0.02, 0
    for _ in range(400):
        draw = generator.random(500)
        reference = torch.from_numpy((draw < only_reference) | (draw > 0.5))
        candidate = torch.from_numpy(
            ((draw >= only_reference) & (draw < only_reference + only_candidate)) | (draw > 0.5)
        )
        interval = paired_interval(reference, candidate)
        covered += interval.low <= 100 * (only_candidate - only_reference) <= interval.high
    assert 0.914 <= covered / 400 <= 0.986
