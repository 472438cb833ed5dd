"""How data lies and moves in the machine that a target describes: links between memories, layouts, reformats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitwright.hw_constraints.target_hardware import bytes_per_second
from bitwright.hw_constraints.target_source import Figure, Source


@dataclass(frozen=True, kw_only=True)
class Link:
    """A way on which bytes go from one memory to another.

    Attributes:
        name: unique in the target.
        start: the memory that is read.
        end: the memory that is written.
        both_ways: whether it also goes back.
        figures: by name: `bandwidth` (of what goes either way), `latency` (to begin a transfer).
    """

    name: str
    start: str
    end: str
    both_ways: bool
    source: Source
    verified: bool
    figures: Mapping[str, Figure]

    def bytes_per_second(self, clock_hz: float | None = None) -> float | None:
        """Its bandwidth; None where a figure is missing."""
        return bytes_per_second(self.figures.get("bandwidth"), clock_hz)

    def __str__(self) -> str:
        return f"{self.start} {'<->' if self.both_ways else '->'} {self.end}"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """An order in which the elements of an activation lie in memory.

    Attributes:
        name: as the toolchain calls it (`NHWC`, `NHCWB16`, `NC/32HW32`).
        channel_multiple: what the number of channels is rounded up to, by the format's name.
        alignment_bytes: what a tensor's address is a multiple of.
        default: whether tensors are in it where nothing else was decided.
    """

    name: str
    channel_multiple: Mapping[str, int]
    alignment_bytes: int
    default: bool
    source: Source
    verified: bool

    def padded_channels(self, channels: int, fmt: str) -> int:
        """The channels that are stored."""
        multiple = self.channel_multiple.get(fmt, 1)
        return -(-channels // multiple) * multiple

    def __str__(self) -> str:
        formats: dict[int, list[str]] = {}
        for fmt, multiple in self.channel_multiple.items():
            formats.setdefault(multiple, []).append(fmt)
        packed = [f"channels in multiples of {n} ({', '.join(names)})" for n, names in formats.items() if n > 1]
        aligned = [f"aligned to {self.alignment_bytes} bytes"] if self.alignment_bytes > 1 else []
        return ", ".join([*packed, *aligned]) or "dense"


@dataclass(frozen=True, kw_only=True)
class Reformat:
    """What turning one layout into another takes.

    Attributes:
        start: the layout that is read.
        end: the layout that is written.
        on_the_fly: the engine writes (or reads) the other layout by itself, so that nothing is added.
        engine: who does it otherwise.
    """

    name: str
    start: str
    end: str
    on_the_fly: bool
    engine: str | None
    source: Source
    verified: bool

    def __str__(self) -> str:
        how = "on the fly" if self.on_the_fly else f"a copy by {self.engine}" if self.engine else "a copy"
        return f"{self.start} -> {self.end}: {how}"
