"""The first frame on which a network with memory is another one, each frame from the reference's memory before it.

Frames cannot be halved: what is remembered before a frame has come through all frames in front of it. But given the
reference's memory, each frame stands alone, as a layer does given the reference's inputs: rounding does not pile up
from frame to frame, and a frame that breaks is a fault of that frame, with its layer, or of what is carried over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitwright.quant.parity.judge import judge
from bitwright.quant.parity.link import Array, Link, Recording
from bitwright.quant.parity.locate import LinkParity, compare_links
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.spread import Explained, difference


@dataclass(frozen=True, kw_only=True)
class FrameBreak:
    """Where a network with memory is another one.

    Attributes:
        frame: from 1.
        parity: of that frame alone.
        carried: what is remembered wrongly behind it, in words.
    """

    frame: int
    parity: LinkParity
    carried: tuple[str, ...]

    def __str__(self) -> str:
        layers = [f"{each.tensor.name} ({each.own.error})" for each in self.parity.breaks if each.own]
        results = [f"{name} ({each.error})" for name, each in self.parity.results.items() if not each.agrees]
        said = [*(layers[:3] or results[:3]), *self.carried]
        return f"frame {self.frame}: {'; '.join(said) or self.parity.problem}"


def remembers(link: Link, frame: Inputs) -> bool:
    """Whether a link tells what it remembers behind a frame."""
    return bool(link.run(frame).state)


def first_broken_frame(first: Link, second: Link, frames: Sequence[Inputs]) -> FrameBreak | None:
    """Looks at one frame behind the other.

    Args:
        first: the reference, which tells what it remembers.
        second: the other.
        frames: in their order.

    Returns:
        None where every frame agrees, what is carried over included.

    Raises:
        LinkError: a link cannot run.
    """
    state: Mapping[str, Array] = {}
    for number, frame in enumerate(frames, 1):
        resumed = replace(frame, state=state)
        parity = compare_links(first, second, [resumed])
        reference, other = first.run(resumed), second.run(resumed)
        carried = tuple(_wrong(first, second, resumed, reference, other))
        if not parity.agrees or carried:
            return FrameBreak(frame=number, parity=parity, carried=carried)
        state = reference.state
    return None


def _wrong(first: Link, second: Link, resumed: Inputs, reference: Recording, other: Recording) -> Iterator[str]:
    """What is not carried over, or is another tensor.

    Of a link in codes, layers have been judged in codes; what it carries over is wrong where it is still what it was.
    """
    has_codes = any(each.grid for each in (*first.tensors.values(), *second.tensors.values()))
    nudged = {} if has_codes else first.run(resumed, nudge=True).state
    for name, expected in reference.state.items():
        actual, before = other.state.get(name), resumed.state.get(name)
        if actual is None:
            yield f"{name} is not carried over"
        elif actual.shape != expected.shape:
            yield f"{name} is carried over as {list(actual.shape)}, expected {list(expected.shape)}"
        elif has_codes:
            if before is not None and np.array_equal(actual, before) and not np.array_equal(expected, before):
                yield f"{name} is carried over as it was before the frame"
        else:
            found = judge(expected, actual, explained=Explained(errors=difference(nudged[name], expected)))
            if not found.agrees:
                yield f"{name} is carried over off by {found.error}; allowed: {found.allowed}"
