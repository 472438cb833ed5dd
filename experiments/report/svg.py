"""Drawings as inline SVG: escaped by construction, described in words, coloured by the page's style sheet."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from bitwright.nas.figures import short

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Maps values between `low` and `high` to positions between `start` and `end`, in user units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of a value; values outside go to the nearer end."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` round numbers between `low` and `high` (steps of 1, 2 or 5 times a power of ten)."""
        raw = (self.high - self.low) / max(1, count)
        if raw <= 0 or not math.isfinite(raw):
            return [self.low]
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


class Svg:
    """A drawing of `width` by `height` user units; shapes take a CSS class and, where it helps, a hint for hovering."""

    def __init__(self, width: float, height: float, *, name: str, title: str, description: str) -> None:
        self.width, self.height = width, height
        self._root = ET.Element(
            "svg",
            {
                "viewBox": f"0 0 {_number(width)} {_number(height)}",
                "role": "img",
                "aria-labelledby": f"{name}-title {name}-desc",
                "class": "chart",
                "style": f"max-width:{_number(width)}px",
            },
        )
        ET.SubElement(self._root, "title", {"id": f"{name}-title"}).text = title
        ET.SubElement(self._root, "desc", {"id": f"{name}-desc"}).text = description

    def line(self, start: Point, end: Point, kind: str) -> None:
        """A straight line."""
        (x1, y1), (x2, y2) = start, end
        self._add("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)

    def rect(self, corner: Point, width: float, height: float, kind: str, *, hint: str = "") -> None:
        """A rectangle from its upper left corner."""
        self._add("rect", kind, hint, x=corner[0], y=corner[1], width=max(0.0, width), height=max(0.0, height))

    def circle(self, centre: Point, radius: float, kind: str, *, hint: str = "") -> None:
        """A disc."""
        self._add("circle", kind, hint, cx=centre[0], cy=centre[1], r=radius)

    def cross(self, centre: Point, radius: float, kind: str, *, hint: str = "") -> None:
        """A diagonal cross."""
        (x, y), r = centre, radius
        self._path(f"M{_number(x - r)} {_number(y - r)}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}", kind, hint)

    def polyline(self, points: Iterable[Point], kind: str, *, hint: str = "") -> None:
        """Connected points."""
        self._path("M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points), kind, hint)

    def text(self, place: Point, text: str, kind: str = "", *, anchor: str = "start") -> None:
        """A line of text; `place` is the left, middle or right end of its baseline."""
        self._add("text", f"{kind} {anchor}".strip(), x=place[0], y=place[1]).text = text

    def axis_below(self, scale: Scale, y: float, label: str, *, top: float, count: int = 6) -> None:
        """Ticks with grid lines up to `top`, and what is measured."""
        for tick in scale.ticks(count):
            self.line((scale(tick), top), (scale(tick), y), "grid")
            self.text((scale(tick), y + 15), short(tick), "tick", anchor="middle")
        self.text((scale.end, y + 31), label, "label", anchor="end")

    def axis_left(self, scale: Scale, x: float, label: str, *, right: float, count: int = 5) -> None:
        """Ticks with grid lines to the right, and what is measured."""
        for tick in scale.ticks(count):
            self.line((x, scale(tick)), (right, scale(tick)), "grid")
            self.text((x - 6, scale(tick) + 4), short(tick), "tick", anchor="end")
        self.text((4, scale.end - 8), label, "label")

    def markup(self) -> Markup:
        """The drawing, safe to stand in a page."""
        return Markup(ET.tostring(self._root, encoding="unicode"))

    def _path(self, path: str, kind: str, hint: str) -> None:
        self._shape("path", {"class": kind, "d": path}, hint)

    def _add(self, tag: str, kind: str, hint: str = "", **numbers: float) -> ET.Element:
        attributes = {"class": kind, **{name: _number(value) for name, value in numbers.items()}}
        return self._shape(tag, attributes, hint)

    def _shape(self, tag: str, attributes: dict[str, str], hint: str) -> ET.Element:
        element = ET.SubElement(self._root, tag, attributes)
        if hint:
            ET.SubElement(element, "title").text = hint
        return element


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
