"""The two ways in which Bitwright refuses: the input is wrong, or something is not installed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong: the message names it, its value, what is allowed and what to do.

    The command line prints the message alone and exits with code 2.
    """


class MissingExtraError(InputError):
    """An optional dependency is missing; the message is the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs: pip install 'bitwright[{extra}]'")


def unknown(what: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for a name that is not registered: `unknown target 'x'; there are: a, b (did you mean 'a'?)`."""
    names = sorted(choices)
    return InputError(f"unknown {what} {name!r}; there are: {', '.join(names) or 'none'}{suggestion(name, names)}")


def suggestion(name: str, choices: Iterable[str]) -> str:
    """` (did you mean 'x'?)` when a choice is close, else nothing."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
