"""Detections against brute force over all pairings, and what row by row makes of a swap."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.quant.parity_measures import Kind, measure_outputs
from bitwright.quant.parity_measures.detections import SAME_OBJECT, Detections, match, of_detections
from bitwright.quant.parity_measures.distances import of_values
from bitwright.quant.parity_measures.outputs import measure


def boxes(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 100, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 20, (count, 2))], 1).astype(np.float32)


def test_a_reorder_after_top_k_is_no_error() -> None:
    """Logits at 58 dB change places where two scores are equal to three digits: rows compared are other objects."""
    rng = np.random.default_rng(0)
    where, scores = boxes(20), np.linspace(0.9, 0.9 - 19e-5, 20).astype(np.float32)
    logits = np.log(scores / (1 - scores))
    noisy = logits + rng.normal(0, 10 ** (-58 / 20) * np.sqrt(np.square(logits).mean()), 20)
    order = np.argsort(-noisy)
    assert of_values(logits, noisy)["SQNR, dB"] > 55
    assert of_values(where, where[order])["SQNR, dB"] < 10
    figures, findings = of_detections(
        Detections(boxes=where, scores=scores), Detections(boxes=where[order], scores=scores[order])
    )
    assert (figures["missed"], figures["extra"], figures["position off by at most"]) == (0, 0, 0)
    assert figures["in another order"] > 0
    assert findings == ()


@given(st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_matching_is_the_best_of_all(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    here = boxes(count, seed)
    there = (here + rng.normal(0, 1, here.shape).astype(np.float32))[rng.permutation(count)]
    rows, columns = match(Detections(boxes=here), Detections(boxes=there))
    size = (here[:, 2:] - here[:, :2]).max(1)

    def apart(i: int, j: int) -> float:
        return float(np.abs(here[i] - there[j]).max() / size[i])

    def total(pairing: tuple[int, ...]) -> tuple[int, float]:
        kept = [apart(i, j) for i, j in enumerate(pairing) if apart(i, j) <= SAME_OBJECT]
        return -len(kept), sum(kept)

    best = min(map(total, permutations(range(count))))
    assert len(rows) == -best[0]
    assert sum(apart(i, j) for i, j in zip(rows, columns, strict=True)) == pytest.approx(best[1], abs=1e-6)


def test_missed_extra_and_other_classes_are_each_a_finding() -> None:
    here, classes = boxes(4), np.array([0, 1, 2, 3])
    there = np.concatenate([here[[3, 0, 1]], boxes(1, 9) + 500])
    figures, findings = of_detections(
        Detections(boxes=here, classes=classes), Detections(boxes=there, classes=np.array([3, 0, 2, 0]))
    )
    assert (figures["missed"], figures["extra"], figures["with another class"]) == (1, 1, 1)
    assert findings == ("object 2 is missed", "object 3 is extra", "object 1: classes 1 against 2")


def test_names_of_tracks_are_up_to_each_side_but_not_who_is_who() -> None:
    where = boxes(3)
    same = of_detections(
        Detections(boxes=where, tracks=np.array([1, 2, 2])), Detections(boxes=where, tracks=np.array([7, 5, 5]))
    )
    other = of_detections(
        Detections(boxes=where, tracks=np.array([1, 2, 2])), Detections(boxes=where, tracks=np.array([7, 5, 7]))
    )
    assert (same[0]["with another track"], other[0]["with another track"]) == (0, 1)


def test_nothing_found_on_either_side() -> None:
    none = np.zeros((0, 6), np.float32)
    assert measure("x", Kind.DETECTIONS, none, none).figures["missed"] == 0
    one = np.array([[0, 0, 10, 10, 0.9, 1]], np.float32)
    assert measure("x", Kind.DETECTIONS, one, none).figures["missed"] == 1
    assert measure("x", Kind.DETECTIONS, none, one).figures["extra"] == 1


def test_results_of_the_same_objects_are_measured_together_image_by_image() -> None:
    where = np.stack([boxes(3), boxes(3, 1)])
    reference = {
        "boxes": where,
        "scores": np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]], np.float32),
        "labels": np.array([[1, 2, 3], [4, 5, 6]]),
    }
    other = {name: value[:, [1, 0, 2]] for name, value in reference.items()}
    other["scores"] = other["scores"] + np.float32(0.25)
    (found,) = measure_outputs(reference, other)
    assert found.name == "boxes, scores, labels"
    assert found.figures["objects"] == 6
    assert found.figures["score off by at most"] == pytest.approx(0.25, abs=1e-6)
    assert (found.figures["with another class"], found.findings) == (0, ())


def test_keypoints_are_matched_as_wholes() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (4, 17, 2)).astype(np.float32)
    figures, _ = of_detections(Detections(keypoints=points), Detections(keypoints=points[::-1] + np.float32(0.5)))
    assert figures["missed"] == 0
    assert figures["position off by at most"] == pytest.approx(0.5, abs=1e-4)


def test_a_box_of_nan_matches_one_of_nan_only() -> None:
    here = boxes(2)
    here[0] = np.nan
    assert of_detections(Detections(boxes=here), Detections(boxes=here))[0]["missed"] == 0
    assert of_detections(Detections(boxes=here), Detections(boxes=boxes(2)))[0]["missed"] == 1
