"""Commands that share a name, `bitwright measure kernels`; the first one is meant where none is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typer.core import TyperGroup


@dataclass(frozen=True, kw_only=True)
class CommandGroup:
    """Several commands under one name.

    Attributes:
        name: what the user writes in front.
        help: of the group as a whole.
        commands: each returns the exit code; the first is run where the next word names none of them.
    """

    name: str
    help: str
    commands: tuple[Callable[..., int], ...]

    @property
    def __name__(self) -> str:
        return self.name


def ordered_by(place: Callable[[str], tuple[int, str]]) -> type[TyperGroup]:
    """A group that lists its commands in this order; Typer would list groups in front of commands."""

    class Ordered(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return sorted(super().list_commands(ctx), key=place)

    return Ordered


class FallsBackToFirst(TyperGroup):
    """A group in which arguments that do not begin with a command's name are those of the first command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the first command's name in front where it is left out; a file of a command's name is `./NAME`."""
        if args and args[0] != "--help" and args[0] not in self.commands:
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)
