"""Measures of one tensor against another of the same shape; NaNs in both count as equal, empty tensors too."""

from __future__ import annotations

import numpy as np

from bitwright.quant.parity_measures.measured import Array, finite_pair
from bitwright.quant.sqnr import sqnr_db

_SHOWN_DISTANCES = 4  # farther ones are counted together


def of_codes(reference: Array, other: Array) -> dict[str, float]:
    """`|a - b|` in codes: the largest, the share that differs, and how many lie how far apart."""
    distance = np.abs(reference.astype(np.int64) - other.astype(np.int64))
    figures = {
        "codes apart at most": float(distance.max(initial=0)),
        "share of codes that differ": float((distance > 0).mean()) if distance.size else 0.0,
    }
    for apart in range(1, _SHOWN_DISTANCES):
        figures[f"{apart} apart"] = float((distance == apart).sum())
    figures[f"{_SHOWN_DISTANCES} or more apart"] = float((distance >= _SHOWN_DISTANCES).sum())
    return figures


def of_values(reference: Array, other: Array) -> dict[str, float]:
    """`10 log10(Σ a² / Σ (a - b)²)`, and `max |a - b|` relative to `max |a|` and in root mean squares of `a`."""
    a, b = finite_pair(reference, other)
    error = np.abs(a - b)
    largest, scale = float(error.max(initial=0.0)), float(np.abs(a).max(initial=0.0))
    return {
        "SQNR, dB": sqnr_db(float(np.square(a).sum()), float(np.square(a - b).sum())),
        "largest error, of the scale": largest / scale if scale > 0 else (np.inf if largest > 0 else 0.0),
    }


def of_logits(reference: Array, other: Array, *, axis: int = 1, k: int = 5) -> dict[str, float]:
    """As values, and how often the same class comes first, and the same `k` classes come first in any order.

    Classes that are equal in the reference have no order: either may come first.

    Args:
        reference: real `[N, C, …]`.
        other: likewise.
        axis: of the classes; 0 where there is no batch.
        k: how many; fewer than the classes.
    """
    figures = of_values(reference, other)
    if not reference.size:
        return figures
    axis = min(axis, reference.ndim - 1)
    a, b = (np.nan_to_num(np.moveaxis(each, axis, -1).astype(np.float64)) for each in (reference, other))
    classes = a.shape[-1]
    figures["top-1 agreement, %"] = 100 * _top_agreement(a, b, 1)
    if 2 * k <= classes:  # of six classes, five first ones are hardly a choice
        figures[f"top-{k} agreement, %"] = 100 * _top_agreement(a, b, k)
    return figures


def _top_agreement(a: Array, b: Array, k: int) -> float:
    """The share of the other's k best classes that are among the reference's k best, its ties included."""
    threshold = np.partition(a, -k, axis=-1)[..., -k, None]
    best = np.argpartition(b, -k, axis=-1)[..., -k:]
    return float((np.take_along_axis(a, best, -1) >= threshold).mean())


def of_masks(reference: Array, other: Array) -> dict[str, float]:
    """Intersection over union, of the mask or of each class that occurs in either: mean, and the worst class."""
    if not reference.size:
        return {}
    reference, other = decided(reference), decided(other)
    labels = np.union1d(np.unique(reference), np.unique(other))
    if reference.dtype.kind == "b":
        labels = labels[labels]  # what lies outside of a mask is no object
    ratios = []
    for label in labels:
        inside, there = reference == label, other == label
        ratios.append(float((inside & there).sum() / (inside | there).sum()))
    return {
        "IoU, mean": float(np.mean(ratios)) if ratios else 1.0,
        "IoU, worst": min(ratios, default=1.0),
        "pixels that differ, %": 100 * float((reference != other).mean()),
    }


def decided(mask: Array) -> Array:
    """What a mask of probabilities says: inside from a half on; labels and booleans stay."""
    inside: Array = mask > 0.5 if mask.dtype.kind == "f" else mask
    return inside


def of_embeddings(reference: Array, other: Array) -> dict[str, float]:
    """Cosine of vectors along the last axis, the mean and the worst one, and the largest error of their length."""
    if not reference.size or not reference.ndim:
        return of_values(reference, other)
    a, b = (
        np.nan_to_num(each.astype(np.float64), posinf=0.0, neginf=0.0).reshape(-1, each.shape[-1])
        for each in (reference, other)
    )
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = lengths[0] * lengths[1]
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    cosine = np.where(both_zero, 1.0, (a * b).sum(1) / np.where(product > 0, product, 1.0))
    length = np.abs(lengths[1] - lengths[0]) / np.where(lengths[0] > 0, lengths[0], 1.0)
    return {
        "cosine, mean": float(cosine.mean()),
        "cosine, worst": float(cosine.min()),
        "length off by at most, %": 100 * float(length.max()),
    }


def of_sequences(reference: Array, other: Array, *, axis: int = 1) -> dict[str, float]:
    """SQNR of every step along `axis`: of the first, the last, the worst, and which that is."""
    axis = min(axis, reference.ndim - 1)
    if not reference.size or axis < 0:
        return of_values(reference, other)
    pairs = zip(np.moveaxis(reference, axis, 0), np.moveaxis(other, axis, 0), strict=True)
    steps = [of_values(np.asarray(a), np.asarray(b))["SQNR, dB"] for a, b in pairs]
    return {
        "SQNR of the first step, dB": steps[0],
        "SQNR of the last step, dB": steps[-1],
        "SQNR of the worst step, dB": min(steps),
        "worst step": float(np.argmin(steps)),
    }


def of_places(reference: Array, other: Array) -> dict[str, float]:
    """How many indices or coordinates moved, and how far at most."""
    a, b = finite_pair(reference, other)
    return {"places that moved": float((a != b).sum()), "moved by at most": float(np.abs(a - b).max(initial=0.0))}
