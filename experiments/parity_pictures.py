"""Results that can be looked at: masks and boxes on the image, of the first form beside another, and the difference."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.utils._pytree as pytree
from PIL import Image, ImageDraw

from bitwright.experiments.parity_result import ParityPicture
from bitwright.experiments.parity_sides import Step
from bitwright.quant.parity.chain import ChainParity
from bitwright.quant.parity.isolated import IsolatedLink
from bitwright.quant.parity.joining import join_outputs
from bitwright.quant.parity.link import LinkError
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity_measures.detections import Detections, match
from bitwright.quant.parity_measures.kinds import guess
from bitwright.quant.parity_measures.measured import Kind

Array = npt.NDArray[Any]
_SIDE = 256  # pixels of the longer side
_GAP = 8
_BOXES = 50  # of the first on
_DIFFERS = (214, 39, 40)
# Ten colours that stay apart for most eyes (Tableau's), for classes and boxes.
_COLOURS = np.array(
    [[31, 119, 180], [255, 127, 14], [44, 160, 44], [148, 103, 189], [140, 86, 75],
     [227, 119, 194], [127, 127, 127], [188, 189, 34], [23, 190, 207], [255, 187, 120]], np.uint8
)  # fmt: skip


def pictures(steps: Sequence[Step], chain: ChainParity, inputs: Inputs) -> Iterator[ParityPicture]:
    """Draws each mask and each set of boxes; nothing where the network has no image, or no such result.

    Args:
        steps: the forms that were compared, the network first.
        chain: what was found; the first form that breaks is drawn, or the last that runs.
        inputs: the arguments of one run.
    """
    image = _image(inputs)
    running = [pair.second for pair in chain.pairs if not pair.problem]
    broken = [pair.second for pair in chain.pairs if not pair.problem and not pair.agrees]
    if image is None or not running:
        return
    by_name = {step.link.name: step.link for step in steps}
    other = by_name[(broken or running[-1:])[0]]
    try:
        first, second = steps[0].link.run(inputs).outputs, other.run(inputs).outputs
    except LinkError:  # it ran a moment ago: of a runtime that fails now and then there is no picture
        return
    finally:
        if isinstance(other, IsolatedLink):
            other.close()
    names = join_outputs(*({name: each.shape for name, each in side.items()} for side in (first, second)))
    for name, there in names.items() if isinstance(names, dict) else ():
        drawn = drawing(name, image, first[name], second[there])
        if drawn is not None:
            words, picture = drawn
            yield ParityPicture(result=name, link=other.name, words=words, png=_png(picture))


def drawing(name: str, image: Array, first: Array, second: Array) -> tuple[str, Image.Image] | None:
    """Both sides of one result on the image, and what differs, in words; None for what is no mask and no boxes.

    Args:
        name: of the result.
        image: uint8 `[H, W, 3]`.
        first: the result as it should be.
        second: the same shape.
    """
    expected, found = (_classes(name, each, image) for each in (first, second))
    if expected is not None and found is not None and expected.shape == found.shape:
        differs = expected != found
        panels = [_with_mask(image, each) for each in (expected, found)]
        panels.append(_with_mask(image, np.asarray(differs, np.int64), np.array([_DIFFERS], np.uint8)))
        return f"{int(np.sum(differs))} of {expected.size} pixels of another class", _beside(panels)
    if guess(name, first) in (Kind.BOXES, Kind.DETECTIONS) and first.shape[-1] in (4, 5, 6):
        return _boxes(image, *((each[0] if each.ndim == 3 else each)[:_BOXES, :4] for each in (first, second)))
    return None


def _boxes(image: Array, first: Array, second: Array) -> tuple[str, Image.Image]:
    """The same object has the same colour on both sides, whatever its row; what only one side has is red and thick."""
    expected, found = (each[np.isfinite(each).all(-1)] for each in (first, second))
    pixels = _pixels(image, expected if len(expected) else found)
    rows, columns = match(Detections(boxes=expected), Detections(boxes=found))
    off = np.abs(expected[rows] - found[columns]).max(initial=0.0)
    lone = [f"{count} {word}" for count, word in
            ((len(expected) - len(rows), "missed"), (len(found) - len(rows), "extra")) if count]  # fmt: skip
    colours = {int(place): _COLOURS[number % len(_COLOURS)] for number, place in enumerate(rows)}
    there = {int(place): _COLOURS[number % len(_COLOURS)] for number, place in enumerate(columns)}
    panels = [_with_boxes(image, pixels(expected), colours), _with_boxes(image, pixels(found), there)]
    return ", ".join([f"boxes off by up to {off:.3g}", *lone]), _beside(panels)


def _image(inputs: Inputs) -> Array | None:
    """The first image of the first input that is one, its values spread over what a screen shows; `[H, W, 3]`."""
    for leaf in pytree.tree_leaves((inputs.args, dict(inputs.kwargs))):
        if isinstance(leaf, torch.Tensor) and leaf.dim() == 4 and leaf.shape[1] in (1, 3) and leaf.numel():
            pixels = leaf[0].detach().float().movedim(0, -1).expand(-1, -1, 3).numpy()
            low, high = np.nanpercentile(pixels, (1, 99))
            spread: Array = (np.clip((pixels - low) / (float(high - low) or 1.0), 0, 1) * 255).astype(np.uint8)
            return spread
    return None


def _classes(name: str, result: Array, image: Array) -> Array | None:
    """The class of each pixel of the first image: of logits `[N, C, H, W]` the largest, of whole numbers themselves.

    Whole numbers are classes where the result is named a mask, or has the image's proportions.
    """
    if result.ndim == 4 and result.dtype.kind == "f" and 1 < result.shape[1] <= 256 and min(result.shape[2:]) > 4:
        largest: Array = result[0].argmax(0)
        return largest
    if result.ndim < 3 or result.dtype.kind not in "iub" or min(result.shape[-2:]) <= 4:
        return None
    height, width = result.shape[-2:]
    if guess(name, result) is Kind.MASK or height * image.shape[1] == width * image.shape[0]:
        whole: Array = result.reshape(-1, height, width)[0].astype(np.int64)
        return whole
    return None


def _with_mask(image: Array, classes: Array, colours: Array = _COLOURS) -> Image.Image:
    """Class 0 is left clear."""
    size = _size(image)
    paint = Image.fromarray(colours[(classes - 1) % len(colours)]).resize(size, Image.Resampling.NEAREST)
    where = Image.fromarray(((classes > 0) * 150).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return Image.composite(paint, Image.fromarray(image).resize(size), where)


def _pixels(image: Array, boxes: Array) -> Callable[[Array], Array]:
    """What turns boxes like these into corners in the picture.

    They are in pixels of the image, or in shares of it where none exceeds one; two corners, or a centre, a width and a
    height where some could be no corners.
    """
    (wide, high), (height, width) = _size(image), image.shape[:2]
    shares = np.abs(boxes).max(initial=0.0) <= 1.0
    factors = np.array([wide, high]) / (1.0 if shares else np.array([width, height]))
    are_corners = bool((boxes[:, 2:] >= boxes[:, :2]).all())

    def corners(each: Array) -> Array:
        first, second = each[:, :2].astype(np.float64), each[:, 2:].astype(np.float64)
        if not are_corners:
            first, second = first - second / 2, first + second / 2
        return np.concatenate([np.minimum(first, second) * factors, np.maximum(first, second) * factors], 1)

    return corners


def _with_boxes(image: Array, boxes: Array, colours: Mapping[int, Array]) -> Image.Image:
    """Each on a white line, which stands out where the image has the box's colour."""
    picture = Image.fromarray(image).resize(_size(image))
    pen = ImageDraw.Draw(picture)
    for place, box in enumerate(boxes):
        left, top, right, bottom = map(float, box)
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="white", width=4)
        colour = tuple(map(int, colours[place])) if place in colours else _DIFFERS
        pen.rectangle((left, top, right, bottom), outline=colour, width=2 if place in colours else 4)
    return picture


def _size(image: Array) -> tuple[int, int]:
    height, width = image.shape[:2]
    factor = _SIDE / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _beside(panels: Sequence[Image.Image]) -> Image.Image:
    width, height = panels[0].size
    whole = Image.new("RGB", (len(panels) * (width + _GAP) - _GAP, height), "white")
    for number, panel in enumerate(panels):
        whole.paste(panel, (number * (width + _GAP), 0))
    return whole


def _png(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")
