"""The sections of a recipe about data: which, in which slices, and which of them calibrate."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bitwright.experiments.recipe_section import Chosen, Count, Entry, Section


class Slices(Section):
    """A name for every sample (night, rain, a rare class): accuracy is told by it, and calibration covers each.

    Attributes:
        column: the part of a batch that holds it: a key of a dict, or a place in a tuple; names, or whole numbers.
        names: what the column's numbers mean, from 0 on.
        folder: of folders of pictures: how many folders up from the picture (1: its own).
        entry: `entry(batch)` returns a name for each row.
        min_calibration: a slice with fewer calibration samples is warned of.
    """

    column: str | int | None = None
    names: tuple[str, ...] = ()
    folder: Count | None = None
    entry: Entry | None = None
    min_calibration: Count = 1

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(each is not None for each in (self.column, self.folder, self.entry)) != 1:
            raise ValueError("needs one of column, folder and entry: what names the slice of a sample")
        if self.names and self.column is None:
            raise ValueError("names say what the numbers of a column mean; give column")
        return self


class DataSection(Chosen):
    """Which data.

    Attributes:
        inputs: which parts of a batch are the model's arguments, when the default does not fit.
        slices: what names the slice of each sample.
    """

    inputs: tuple[str | int, ...] | None = None
    slices: Slices | None = None


class Calibrate(Section):
    """What the ranges of activations are chosen from, and how.

    Attributes:
        samples: how many calibrate.
        min_samples: fewer are refused.
        select: which ones: the first, a random draw (by the seed), or those whose values are spread as all are, with
            some of every slice.
        candidates: the first so many are chosen from; None for all calibration data.
        observer: turns values into ranges, in place of the target's.
        observer_arguments: the observer's own.
    """

    samples: Count = 200
    min_samples: Count = 16
    select: Literal["first", "random", "coverage"] = "first"
    candidates: Annotated[int, Field(ge=2)] | None = None
    observer: str | None = None
    observer_arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_choice(self) -> Self:
        if self.candidates is not None and self.select == "first":
            raise ValueError("candidates are what select: random and select: coverage choose from; give one of them")
        if self.candidates is not None and self.candidates < self.samples:
            raise ValueError(f"candidates = {self.candidates} are fewer than samples = {self.samples}")
        return self
