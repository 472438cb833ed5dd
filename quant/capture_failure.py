"""Why a network could not be captured: the user's own line, and what to write instead."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from bitwright.quant.errors import InputError
from bitwright.quant.graph import SourceLine

# Frames that are not the user's.
LIBRARY = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent / "quant"), "<")


@dataclass(frozen=True, kw_only=True)
class CaptureFailure:
    """Why a network could not be captured: where, and what to write instead."""

    reason: str
    source: SourceLine | None
    suggestion: str
    data_dependent: bool = False


class CaptureError(InputError):
    """The network cannot be captured whole; `failure` says where and why."""

    def __init__(self, failure: CaptureFailure) -> None:
        where = f"{failure.source}: {failure.source.text}\n  " if failure.source else ""
        super().__init__(f"the model cannot be captured\n  {where}{failure.reason}\n  {failure.suggestion}")
        self.failure = failure


_ADVICE: tuple[tuple[str, str, bool], ...] = (
    ("^SystemExit: ", "forward ends the process there: raise an error instead, or leave the call out", False),
    (
        r"data-dependent|GuardOnDataDependent|Could not guard|unbacked",
        "the value of a tensor decides what runs next: use torch.where, a fixed number of steps, or torch.cond; "
        "or capture the part around it as regions",
        True,
    ),
    (r"\.item\(\)|_local_scalar_dense", "read scalars from Python attributes, not from tensors", True),
    (
        r"register it as buffer",
        "what outlives a call belongs into a buffer: self.register_buffer(name, tensor)",
        False,
    ),
    (r"NonZero|nonzero|masked_select", "replace the boolean mask by torch.where with a fixed output shape", True),
)


def failure_of(error: BaseException) -> CaptureFailure:
    """What `torch.export` raised, as the line in the user's code and advice."""
    message = str(error)
    kind = type(error).__name__
    text = f"{kind}: {message}"
    first = next((line.strip() for line in message.splitlines() if line.strip()), kind)
    source = None
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(LIBRARY) and frame.lineno is not None:
            line = linecache.getline(frame.filename, frame.lineno).strip()
            source = SourceLine(frame.filename, frame.lineno, line)
            break
    for pattern, advice, data_dependent in _ADVICE:
        if re.search(pattern, text):
            return CaptureFailure(
                reason=f"{kind}: {first}", source=source, suggestion=advice, data_dependent=data_dependent
            )
    return CaptureFailure(
        reason=f"{kind}: {first}",
        source=source,
        suggestion="run torch.export.export(model, example_inputs) alone to see torch's own report",
    )


_ASSIGNED = re.compile(r"tensor attributes? (.+) (?:was|were) assigned during export")
# torch's recurrent layers list their own parameters there; nothing outlives the call.
_OF_TORCH = re.compile(r"(\w+\.)*_flat_weights\[\d+\]")


def lost_state(warnings: Iterable[str]) -> CaptureFailure | None:
    """The failure when `forward` keeps tensors in plain attributes: torch drops them with a mere warning."""
    for message in warnings:
        match = _ASSIGNED.search(message)
        lost = [name for name in match.group(1).split(", ") if not _OF_TORCH.fullmatch(name)] if match else []
        if lost:
            return CaptureFailure(
                reason=f"forward assigns {', '.join(lost)}, which is no buffer and would be lost",
                source=None,
                suggestion="what outlives a call belongs into a buffer: self.register_buffer(name, tensor); what is "
                "only looked at belongs into the outputs",
            )
    return None
