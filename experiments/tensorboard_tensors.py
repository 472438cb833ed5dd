"""The quantized tensors for TensorBoard: SQNR by layer, histograms with thresholds, the worst and what would help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bitwright.experiments import tensorboard_images as images
from bitwright.experiments.figure_text import format_value
from bitwright.experiments.tensor_result import TensorQuality

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_IMAGES = 12  # clip lines are drawn for so many activations and weights with the lowest SQNR of their own


def write_tensors(tensors: Sequence[TensorQuality], writer_of: Callable[[str], SummaryWriter]) -> None:
    """Writes scalars and histograms to `layers`, the plain ones to `layers_plain`, pictures and text to `summary`."""
    activations = [each for each in tensors if each.kind == "activation"]
    if not activations:
        return
    writer = writer_of("layers")
    for step, each in enumerate(activations):
        writer.add_scalar("layers/own_sqnr_db", each.own_sqnr.value, step)
        writer.add_scalar("layers/sqnr_db", each.sqnr.value, step)
        writer.add_scalar("layers/clipped_percent", each.clipped.value, step)
        for tag, figure in (("layers/own_sqnr_db", each.own_before), ("layers/sqnr_db", each.before)):
            if figure is not None:
                writer_of("layers_plain").add_scalar(tag, figure.value, step)
    for each in tensors:
        if each.counts:
            _add_histogram(writer, each)
    for kind, tag in (("activation", "clip_lines"), ("weight", "weight_clip_lines")):
        drawn = [each for each in tensors if each.kind == kind and each.counts]
        for rank, each in enumerate(sorted(drawn, key=lambda each: each.own_sqnr.value)[:_IMAGES], start=1):
            # TensorBoard sorts by name: the worst comes first.
            writer.add_image(f"{tag}/{rank:02d} {each.tensor}", images.histogram_image(each), dataformats="HWC")
    writer_of("summary").add_image("sqnr_per_layer", images.sqnr_image(activations), dataformats="HWC")
    writer_of("summary").add_text("run/top_offenders", offenders_markdown(tensors))


def offenders_markdown(tensors: Sequence[TensorQuality]) -> str:
    """The tensors with the lowest SQNR of their own as a table, with what would help."""
    worst = sorted(tensors, key=lambda each: each.own_sqnr.value)[:_IMAGES]
    rows = [
        f"| `{each.tensor}` | {each.kind} | {each.format} | {format_value(each.own_sqnr.value, 'dB')} | "
        f"{format_value(each.own_before.value, 'dB') if each.own_before else ''} | "
        f"{format_value(each.clipped.value, '%')} | {each.advice} |"
        for each in worst
    ]
    head = "| tensor | kind | format | own SQNR | plain | clipped | what would help |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def _add_histogram(writer: SummaryWriter, tensor: TensorQuality) -> None:
    """The counted bins as they are; sums, which TensorBoard shows nowhere, from the middles of the bins."""
    edges, counts = np.asarray(tensor.edges), np.asarray(tensor.counts)
    middles = (edges[:-1] + edges[1:]) / 2
    writer.add_histogram_raw(
        f"{'activations' if tensor.kind == 'activation' else 'weights'}/{tensor.tensor}",
        min=edges[0],
        max=edges[-1],
        num=int(counts.sum()),
        sum=float((counts * middles).sum()),
        sum_squares=float((counts * middles**2).sum()),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
    )
