"""What a result is: by the user's own word, else by its name, what makes it, its type and its shape."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bitwright.quant.errors import InputError, unknown
from bitwright.quant.parity_measures.measured import Array, Kind

# Words in the names of results, the first that fits decides; `keypoint_scores` are scores, `box_classes` classes.
_WORDS = (
    (r"score|conf(idence)?s?\W*$|prob", Kind.SCORES),
    (r"class(es)?\W*$|labels?\W*$|categor", Kind.CLASSES),
    (r"track|(^|_|\W)ids?\W*$", Kind.TRACKS),
    (r"key_?points?|landmarks?|joints?", Kind.KEYPOINTS),
    (r"box(es)?", Kind.BOXES),
    (r"detections?", Kind.DETECTIONS),
    (r"logits?|cls", Kind.LOGITS),
    (r"masks?|segm", Kind.MASK),
    (r"embed|feature|descriptor", Kind.EMBEDDING),
    (r"ind(ex|ices|s)?\W*$|coords?|grid", Kind.PLACES),
    (r"trajector|waypoint|sequence|steps?\W*$", Kind.SEQUENCE),
)
_RANKS = {Kind.SCORES: (1, 2), Kind.CLASSES: (1, 2), Kind.TRACKS: (1, 2), Kind.KEYPOINTS: (3, 4), Kind.BOXES: (2, 3)}
_CODES = ("int4", "uint4", "int8", "uint8")
_CHOOSES = frozenset({"argmax", "argmin", "topk", "sort", "argsort", "nonzero", "nms"})


def guess(name: str, array: Array, op: str = "") -> Kind:
    """What a result most likely is.

    Args:
        name: its place in what `forward` returns, or its name in a file.
        array: its values.
        op: what makes it, in ATen's or ONNX's words.
    """
    makes = op.lower().replace("_", "")
    word = _by_name(name, array)
    if array.dtype.kind == "b":
        return Kind.MASK
    if array.dtype.kind in "iu":
        if word in (Kind.CLASSES, Kind.TRACKS, Kind.PLACES):
            return word
        if array.dtype.name in _CODES and makes not in _CHOOSES:
            return Kind.CODES
        # A class for each pixel is a map of two dimensions or more.
        return Kind.MASK if makes in ("argmax", "argmin") and array.ndim >= 3 else Kind.PLACES
    if word is not None:
        return word
    if makes in ("softmax", "logsoftmax") or (makes in ("linear", "addmm", "gemm") and array.ndim == 2):
        return Kind.LOGITS if array.ndim >= 2 and array.shape[1] > 1 else Kind.VALUES
    return Kind.SCORES if makes in ("topk", "nms") and array.ndim <= 2 else Kind.VALUES


def _by_name(name: str, array: Array) -> Kind | None:
    """A word counts where the shape can be what it says."""
    for pattern, kind in _WORDS:
        if re.search(pattern, name.lower()):
            if kind is Kind.CLASSES and array.dtype.kind not in "iu":
                return Kind.LOGITS if array.ndim >= 2 else Kind.VALUES
            if kind is Kind.SCORES and array.ndim > 2:
                return Kind.LOGITS
            if kind is Kind.DETECTIONS and (array.ndim not in (2, 3) or array.shape[-1] not in (5, 6)):
                return None
            low, high = _RANKS.get(kind, (0, 99))
            return kind if low <= array.ndim <= high else None
    return None


def kinds_from_words(words: Mapping[str, str]) -> dict[str, Kind]:
    """The user's own words for their results: `{"result['pred']": "boxes"}`.

    Raises:
        InputError: there is no such kind; those that there are get listed.
    """
    for name, word in words.items():
        if word not in tuple(Kind):
            raise InputError(f"result {name!r}: {unknown('kind of result', word, [kind.value for kind in Kind])}")
    return {name: Kind(word) for name, word in words.items()}
