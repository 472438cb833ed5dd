"""What every page about a target is made of: numbered sources and tables that line up."""

from __future__ import annotations

from collections.abc import Iterable

from bitwright.hw_constraints.target_source import Figure, Source


class Sources:
    """Numbers sources in the order in which the page needs them."""

    def __init__(self) -> None:
        self.numbers: dict[Source, int] = {}

    def mark(self, source: Source, *, verified: bool) -> str:
        """`[2]`, or `[2]?` for what was taken on trust."""
        number = self.numbers.setdefault(source, len(self.numbers) + 1)
        return f"[{number}]{'' if verified else '?'}"

    def of(self, figure: Figure) -> str:
        """The mark of a figure."""
        return self.mark(figure.source, verified=figure.verified)

    def listed(self) -> str:
        """The section that closes a page."""
        return "## Sources\n" + "\n".join(f"{number}. {source}" for source, number in self.numbers.items())


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table whose columns line up."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
