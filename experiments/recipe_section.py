"""What the sections of a recipe are made of."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ENTRY = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
Entry = Annotated[str, Field(pattern=ENTRY, description="package.module:function")]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """What all sections share: frozen; unknown keys, NaN and infinity are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Chosen(BaseModel):
    """Something registered, by its `kind`, or the user's own, by its `entry`.

    The other keys are the kind's own settings, checked against them, or `arguments` for the entry.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    kind: str | None = None
    entry: Entry | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.kind is None) == (self.entry is None):
            raise ValueError("needs either kind (see `bitwright ls`) or entry (package.module:function)")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that belong to the kind or the entry."""
        return dict(self.model_extra or {})


class EntryArguments(Section):
    """What an entry is called with."""

    arguments: dict[str, Any] = Field(default_factory=dict)
