"""Results that can be looked at: masks and boxes on the image, of the first form beside another, and the difference."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
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
    expected, found = (_classes(name, each) for each in (first, second))
    if expected is not None and found is not None:
        differs = expected != found
        panels = [_with_mask(image, each) for each in (expected, found)]
        panels.append(_with_mask(image, np.asarray(differs, np.int64), np.array([_DIFFERS], np.uint8)))
        return f"{int(np.sum(differs))} of {expected.size} pixels of another class", _beside(panels)
    if guess(name, first) is Kind.BOXES:
        boxes = [each.reshape(-1, each.shape[-1])[:_BOXES, :4] for each in (first, second)]
        moved = np.abs(boxes[0] - boxes[1]).max(axis=-1)
        return f"boxes off by up to {moved.max(initial=0.0):.3g}", _beside([_with_boxes(image, each) for each in boxes])
    return None


def _image(inputs: Inputs) -> Array | None:
    """The first image of the first input that is one, its values spread over what a screen shows; `[H, W, 3]`."""
    for leaf in pytree.tree_leaves((inputs.args, dict(inputs.kwargs))):
        if isinstance(leaf, torch.Tensor) and leaf.dim() == 4 and leaf.shape[1] in (1, 3) and leaf.numel():
            pixels = leaf[0].detach().float().movedim(0, -1).expand(-1, -1, 3).numpy()
            low, high = np.nanpercentile(pixels, (1, 99))
            spread: Array = (np.clip((pixels - low) / (float(high - low) or 1.0), 0, 1) * 255).astype(np.uint8)
            return spread
    return None


def _classes(name: str, result: Array) -> Array | None:
    """The class of each pixel of the first image: of logits `[N, C, H, W]` the largest, of whole numbers themselves."""
    if result.ndim == 4 and result.dtype.kind == "f" and 1 < result.shape[1] <= 256 and min(result.shape[2:]) > 4:
        largest: Array = result[0].argmax(0)
        return largest
    if result.ndim >= 3 and guess(name, result) is Kind.MASK and result.dtype.kind in "iub":
        whole: Array = result.reshape(-1, *result.shape[-2:])[0].astype(np.int64)
        return whole
    return None


def _with_mask(image: Array, classes: Array, colours: Array = _COLOURS) -> Image.Image:
    """Class 0 is left clear."""
    size = _size(image)
    paint = Image.fromarray(colours[(classes - 1) % len(colours)]).resize(size, Image.Resampling.NEAREST)
    where = Image.fromarray(((classes > 0) * 150).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return Image.composite(paint, Image.fromarray(image).resize(size), where)


def _with_boxes(image: Array, boxes: Array) -> Image.Image:
    """Corners in pixels, or in shares of the image where none exceeds it."""
    size = _size(image)
    finite = boxes[np.isfinite(boxes).all(-1)]
    height, width = (1.0, 1.0) if np.abs(finite).max(initial=0.0) <= 1.0 else image.shape[:2]
    picture = Image.fromarray(image).resize(size)
    pen = ImageDraw.Draw(picture)
    for number, (left, top, right, bottom) in enumerate(finite):
        corners = sorted((left, right)), sorted((top, bottom))
        (x1, x2), (y1, y2) = ([value * side / whole for value in pair]
                              for pair, side, whole in zip(corners, size, (width, height), strict=True))  # fmt: skip
        pen.rectangle((x1, y1, x2, y2), outline=tuple(map(int, _COLOURS[number % len(_COLOURS)])), width=2)
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
