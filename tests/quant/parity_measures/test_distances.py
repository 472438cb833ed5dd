"""Measures against values worked out by hand, scikit-learn's and brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import jaccard_score
from sklearn.metrics.pairwise import cosine_similarity

from bitwright.quant.errors import InputError
from bitwright.quant.parity_measures import Kind, measure_outputs
from bitwright.quant.parity_measures.distances import (
    of_codes,
    of_embeddings,
    of_logits,
    of_masks,
    of_places,
    of_sequences,
    of_values,
)
from bitwright.quant.parity_measures.outputs import measure


def test_codes_are_counted_by_how_far_they_lie_apart() -> None:
    found = of_codes(np.array([0, 1, 2, 255], np.uint8), np.array([0, 2, 0, 0], np.uint8))
    assert found == {
        "codes apart at most": 255.0,
        "share of codes that differ": 0.75,
        "1 apart": 1.0,
        "2 apart": 1.0,
        "3 apart": 0.0,
        "4 or more apart": 1.0,
    }


def test_a_tenth_of_the_amplitude_is_twenty_decibels() -> None:
    a = np.array([1.0, -1.0, 1.0, -1.0], np.float32)
    found = of_values(a, a * np.float32(1.1))
    assert found["SQNR, dB"] == pytest.approx(20.0, abs=1e-4)
    assert found["largest error, of the scale"] == pytest.approx(0.1, rel=1e-5)


@given(arrays(np.float64, (7, 12), elements=st.floats(-5, 5)), arrays(np.float64, (7, 12), elements=st.floats(-5, 5)))
def test_agreement_is_what_counting_says(a: np.ndarray, b: np.ndarray) -> None:
    found = of_logits(a, b)
    top1 = np.mean([row[other.argmax()] >= row.max() for row, other in zip(a, b, strict=True)])
    assert found["top-1 agreement, %"] == pytest.approx(100 * top1) or len(set(b.flatten())) < b.size
    assert 0 <= found["top-5 agreement, %"] <= 100
    assert of_logits(a, a)["top-5 agreement, %"] == 100


def test_equal_logits_have_no_order() -> None:
    a = np.array([[1.0, 1.0, 0.0]])
    assert of_logits(a, np.array([[0.9, 1.1, 0.0]]))["top-1 agreement, %"] == 100
    assert of_logits(a, np.array([[0.9, 1.1, 1.2]]))["top-1 agreement, %"] == 0


@given(arrays(np.int64, 30, elements=st.integers(0, 3)), arrays(np.int64, 30, elements=st.integers(0, 3)))
def test_masks_are_measured_as_scikit_learn_does(a: np.ndarray, b: np.ndarray) -> None:
    labels = np.union1d(a, b)
    assert of_masks(a, b)["IoU, mean"] == pytest.approx(jaccard_score(a, b, labels=labels, average="macro"))


def test_what_lies_outside_of_a_mask_is_no_object() -> None:
    a, b = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    a[0, :2], b[0, 1:3] = True, True
    assert of_masks(a, b)["IoU, mean"] == pytest.approx(1 / 3)
    assert of_masks(~a & a, ~a & a)["IoU, mean"] == 1.0  # two empty ones


def test_embeddings_turn_and_grow() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    assert of_embeddings(a, b)["cosine, worst"] == pytest.approx(np.diag(cosine_similarity(a, b)).min())
    grown = of_embeddings(a, 2 * a)
    assert (grown["cosine, worst"], grown["length off by at most, %"]) == (pytest.approx(1.0), pytest.approx(100.0))


def test_the_worst_step_is_named() -> None:
    a = np.ones((1, 6, 3))
    b = a.copy()
    b[0, 4] += 0.1
    found = of_sequences(a, b)
    assert found["worst step"] == 4
    assert found["SQNR of the worst step, dB"] == pytest.approx(20.0)
    assert found["SQNR of the last step, dB"] == 200.0


def test_moved_places_are_counted() -> None:
    assert of_places(np.array([3, 4, 5]), np.array([3, 4, 7])) == {"places that moved": 1.0, "moved by at most": 2.0}


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.DETECTIONS])
def test_empty_results_agree(kind: Kind) -> None:
    empty = np.zeros((1, 0, 4), np.float32)
    found = measure("x", kind, empty, empty)
    assert found.findings == ()
    assert found.figures.get("SQNR, dB", 200.0) == 200.0


@pytest.mark.parametrize("kind", [Kind.VALUES, Kind.LOGITS, Kind.EMBEDDING, Kind.SEQUENCE])
def test_nan_in_both_is_equal_and_in_one_a_finding(kind: Kind) -> None:
    a = np.array([[1.0, np.nan, 3.0]], np.float32)
    assert measure("x", kind, a, a).findings == ()
    assert measure("x", kind, a, np.array([[1.0, 2.0, 3.0]], np.float32)).findings == (
        "1 elements are NaN in one of the two only",
    )
    assert "infinite" in measure("x", kind, np.array([[np.inf]]), np.array([[-np.inf]])).findings[0]
    assert measure("x", kind, np.array([[np.inf]]), np.array([[np.inf]])).findings == ()


def test_other_shapes_and_results_are_findings() -> None:
    a, b = np.zeros((1, 3)), np.zeros((1, 4))
    found = measure_outputs({"x": a, "gone": a}, {"x": b, "new": b})
    assert [each.findings for each in found] == [
        ("shape [1, 4] against [1, 3]",),
        ("the other network has no such result",),
        ("the reference has no such result",),
    ]


def test_a_word_for_a_result_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(InputError, match="result 'y' is none of the network's: x"):
        measure_outputs({"x": np.zeros(1)}, {"x": np.zeros(1)}, kinds={"y": Kind.MASK})
