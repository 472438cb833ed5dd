import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from bitwright.experiments.benchmarks.metrics import sqnr_db
from bitwright.experiments.benchmarks.segmentation_metrics import LabelledPixels, pixel_agreement_percent

CLASSES, IGNORED = 4, 7


@pytest.fixture
def pictures():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, (9, 6, 8))
    labels[generator.random(labels.shape) < 0.1] = IGNORED
    logits = generator.normal(size=(2, 9, CLASSES, 6, 8)).astype(np.float32)
    truth = np.moveaxis(np.eye(IGNORED + 1)[labels][..., :CLASSES], -1, 1)
    return labels, logits[0] + 3 * truth, logits[1] + 2 * truth


def macro_jaccard(labels, logits):
    counted = labels != IGNORED
    return 100 * jaccard_score(labels[counted], logits.argmax(1)[counted], average="macro")


def test_miou_is_the_mean_jaccard_index_of_all_pixels(pictures):
    labels, better, worse = pictures
    pixels = LabelledPixels(labels=labels, classes=CLASSES, ignored=IGNORED)
    assert pixels.miou(better).value == pytest.approx(macro_jaccard(labels, better))
    drop = pixels.miou_drop(better, worse)
    assert drop.value == pytest.approx(macro_jaccard(labels, better) - macro_jaccard(labels, worse))
    assert drop.low <= drop.value <= drop.high


def test_a_class_that_never_occurs_is_left_out(pictures):
    labels, better, _ = pictures
    more = np.concatenate([better, np.full((9, 1, 6, 8), -99.0, np.float32)], axis=1)
    assert LabelledPixels(labels=labels, classes=CLASSES + 1, ignored=IGNORED).miou(more).value == pytest.approx(
        macro_jaccard(labels, better)
    )


def test_pixels_agree_and_noise_is_counted_over_all_of_them(pictures):
    _, better, worse = pictures
    same = 100 * np.mean(better.argmax(1) == worse.argmax(1))
    assert pixel_agreement_percent(better, worse).value == pytest.approx(same)
    flat = [each.reshape(9, -1) for each in (better, worse)]
    assert sqnr_db(better, worse).value == pytest.approx(sqnr_db(*flat).value)
