"""Whether each figure on a report page says where it comes from: measured, modelled or quoted."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser

ORIGINS = frozenset({"measured", "modelled", "quoted"})
# What a reader takes in at a glance: a figure's mark has to stand in the same one.
BLOCKS = frozenset({"tr", "p", "li", "div", "section", "figcaption", "body"})
VOID = frozenset({"meta", "link", "br", "img", "hr", "input", "col", "wbr", "source"})


@dataclass
class Counts:
    """What an element holds: figures and marks."""

    tag: str
    figures: int = 0
    marks: int = 0


class MarkReader(HTMLParser):
    """Counts figures (class `number`) and those without a mark (class `badge` and an origin) in their block.

    Attributes:
        figures: all of them.
        unmarked: those without.
    """

    def __init__(self) -> None:
        super().__init__()
        self.figures = 0
        self.unmarked = 0
        self._open: list[Counts] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens an element."""
        if tag in VOID:
            return
        classes = set((dict(attrs).get("class") or "").split())
        counts = Counts(
            tag, figures=int("number" in classes), marks=int("badge" in classes and bool(classes & ORIGINS))
        )
        self.figures += counts.figures
        self._open.append(counts)

    def handle_endtag(self, tag: str) -> None:
        """Closes an element, and those inside that HTML lets stand open."""
        if tag not in (counts.tag for counts in self._open):
            return
        while self._open:
            closed = self._open.pop()
            if closed.tag in BLOCKS:
                self.unmarked += 0 if closed.marks else closed.figures
                closed.figures = 0
            if self._open:
                self._open[-1].figures += closed.figures
                self._open[-1].marks += closed.marks
            if closed.tag == tag:
                return


def read_marks(page: str) -> MarkReader:
    """Reads a whole page."""
    reader = MarkReader()
    reader.feed(page)
    reader.close()
    return reader
