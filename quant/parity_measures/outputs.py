"""All results of one network against those of another, each by the measure that fits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bitwright.quant.errors import InputError
from bitwright.quant.parity_measures import distances
from bitwright.quant.parity_measures.detections import Detections, of_detections
from bitwright.quant.parity_measures.kinds import guess
from bitwright.quant.parity_measures.measured import OF_DETECTIONS, Array, Kind, Measured, unlike

_MEASURES: Mapping[Kind, Callable[[Array, Array], dict[str, float]]] = {
    Kind.CODES: distances.of_codes,
    Kind.VALUES: distances.of_values,
    Kind.LOGITS: distances.of_logits,
    Kind.MASK: distances.of_masks,
    Kind.EMBEDDING: distances.of_embeddings,
    Kind.SEQUENCE: distances.of_sequences,
    Kind.PLACES: distances.of_places,
    Kind.CLASSES: distances.of_places,
    Kind.TRACKS: distances.of_places,
    Kind.SCORES: distances.of_values,
    Kind.BOXES: distances.of_values,
    Kind.KEYPOINTS: distances.of_values,
}


def measure_outputs(
    reference: Mapping[str, Array],
    other: Mapping[str, Array],
    *,
    kinds: Mapping[str, Kind] | None = None,
    ops: Mapping[str, str] | None = None,
) -> tuple[Measured, ...]:
    """Measures every result; boxes, keypoints, scores, classes and tracks of as many objects are matched together.

    Args:
        reference: the results by name.
        other: likewise, under the same names.
        kinds: what the user says they are; the others are guessed.
        ops: what makes them, where it is known.

    Raises:
        InputError: `kinds` names a result that there is none of.
    """
    said = dict(kinds or {})
    if strange := sorted(said.keys() - reference.keys()):
        raise InputError(f"result {strange[0]!r} is none of the network's: {', '.join(reference)}")
    found = {name: said.get(name) or guess(name, array, (ops or {}).get(name, "")) for name, array in reference.items()}
    measured = []
    grouped: set[str] = set()
    for name, kind in found.items():
        if name in grouped:
            continue
        if name not in other:
            measured.append(Measured(name=name, kind=kind, findings=("the other network has no such result",)))
            continue
        group = _group(name, found, reference, other) if kind in OF_DETECTIONS else ()
        if len(group) > 1:
            grouped.update(group)
            measured.append(_of_group(group, found, reference, other))
        else:
            measured.append(measure(name, kind, reference[name], other[name]))
    extra = [name for name in other if name not in reference]
    measured += [
        Measured(name=name, kind=guess(name, other[name]), findings=("the reference has no such result",))
        for name in extra
    ]
    return tuple(measured)


def measure(name: str, kind: Kind, reference: Array, other: Array) -> Measured:
    """Measures one result by its kind; detections may differ in number, all others have one shape."""
    if kind is Kind.DETECTIONS:
        return _of_rows(name, reference, other)
    findings = unlike(reference, other)
    if reference.shape != other.shape:
        return Measured(name=name, kind=kind, findings=findings)
    return Measured(name=name, kind=kind, figures=_MEASURES[kind](reference, other), findings=findings)


def _group(
    name: str, kinds: Mapping[str, Kind], reference: Mapping[str, Array], other: Mapping[str, Array]
) -> tuple[str, ...]:
    """The results that speak of the same objects, one of each kind: those with the same leading dimensions."""
    images = reference[name].ndim - _rank(kinds[name])
    objects = reference[name].shape[: images + 1]
    group: dict[Kind, str] = {}
    for each, kind in kinds.items():
        if kind in OF_DETECTIONS and each in other and reference[each].shape[: images + 1] == objects:
            fits = reference[each].ndim - _rank(kind) == images and other[each].ndim == reference[each].ndim
            if fits:
                group.setdefault(kind, each)
    has_place = Kind.BOXES in group or Kind.KEYPOINTS in group
    return tuple(group.values()) if has_place and name in group.values() and images in (0, 1) else (name,)


def _rank(kind: Kind) -> int:
    return {Kind.BOXES: 2, Kind.KEYPOINTS: 3}.get(kind, 1)


def _of_group(
    group: tuple[str, ...], kinds: Mapping[str, Kind], reference: Mapping[str, Array], other: Mapping[str, Array]
) -> Measured:
    name = ", ".join(group)
    first = group[0]
    batched = reference[first].ndim > _rank(kinds[first])
    sides = [{kinds[each]: side[each] for each in group} for side in (reference, other)]
    if batched and len({len(array) for side in sides for array in side.values()}) > 1:
        return Measured(name=name, kind=Kind.DETECTIONS, findings=("another number of images",))
    images = range(len(reference[first])) if batched else (None,)
    pairs = []
    for image in images:
        cut = [{kind: array if image is None else array[image] for kind, array in side.items()} for side in sides]
        pairs.append((Detections.of(cut[0]), Detections.of(cut[1])))
    return _of_images(name, Kind.DETECTIONS, iter(pairs))


def _of_rows(name: str, reference: Array, other: Array) -> Measured:
    """Rows of detections `[n, 5 or 6]`, or `[images, n, 5 or 6]`."""
    fit = reference.ndim == other.ndim and reference.ndim in (2, 3) and reference.shape[-1] == other.shape[-1] in (5, 6)
    if not fit or (reference.ndim == 3 and len(reference) != len(other)):
        return Measured(
            name=name,
            kind=Kind.DETECTIONS,
            findings=unlike(reference, other)
            or (f"rows of {list(reference.shape)} are no detections: (x0, y0, x1, y1, score, class)",),
        )
    sides = (reference[None], other[None]) if reference.ndim == 2 else (reference, other)
    pairs = ((Detections.of_rows(a), Detections.of_rows(b)) for a, b in zip(*sides, strict=True))
    return _of_images(name, Kind.DETECTIONS, pairs)


def _of_images(name: str, kind: Kind, pairs: Iterator[tuple[Detections, Detections]]) -> Measured:
    """Counts are added over the images, errors are those of the worst one."""
    figures: dict[str, float] = {}
    findings: list[str] = []
    for image, (reference, other) in enumerate(pairs):
        each, said = of_detections(reference, other)
        findings += [f"image {image}: {text}" for text in said]
        for key, value in each.items():
            worst = "at most" in key
            figures[key] = max(figures.get(key, 0.0), value) if worst else figures.get(key, 0.0) + value
    return Measured(name=name, kind=kind, figures=figures, findings=tuple(findings))
