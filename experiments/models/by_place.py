"""Settings that may differ by place in a network: `kernel: 3`, `kernel_1: 5` in stage 1, `kernel_1_0: 7` in a block.

So each decision of a search is one setting, and what it does not decide stays as the recipe has it.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ByPlace(BaseModel):
    """Settings of which those named in `LOCAL` may be given by place.

    Attributes:
        local: what was given by place, by its whole name.
    """

    LOCAL: ClassVar[tuple[str, ...]] = ()
    model_config = ConfigDict(frozen=True, extra="forbid")
    local: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        pattern = re.compile(rf"({'|'.join(cls.LOCAL)})(_\d+)+")
        local = {name: value for name, value in given.items() if pattern.fullmatch(name)}
        for name, value in local.items():
            cls.model_validate({re.sub(r"(_\d+)+$", "", name): value})
        return {**{name: value for name, value in given.items() if name not in local}, "local": local}

    def at(self, name: str, *place: int) -> Any:
        """A setting at a place, such as (stage, block): as it was given there, else for the stage, else for all."""
        for length in range(len(place), 0, -1):
            given = "_".join([name, *map(str, place[:length])])
            if given in self.local:
                return self.local[given]
        return getattr(self, name)
