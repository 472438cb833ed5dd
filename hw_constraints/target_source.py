"""What makes a statement about hardware worth something: where it was read, and whether that was checked."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.hw_constraints.quantity import Quantity


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where statements were read."""

    title: str
    url: str | None = None

    def __str__(self) -> str:
        return f"{self.title} ({self.url})" if self.url else self.title


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of the hardware, where it was read, and whether that was checked."""

    quantity: Quantity
    source: Source
    verified: bool

    @property
    def value(self) -> float:
        """In the base unit of its dimension."""
        return self.quantity.value

    def __str__(self) -> str:
        return self.quantity.text


@dataclass(frozen=True, kw_only=True)
class UnverifiedField:
    """A statement of a target file that was taken on trust."""

    path: str
    value: str
    source: Source

    def __str__(self) -> str:
        return f"{self.path} = {self.value} (not verified; {self.source})"
