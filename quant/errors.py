"""The two ways in which Bitwright refuses: the input is wrong, or something is not installed."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong: the message names it, its value, what is allowed and what to do.

    The command line prints the message alone and exits with code 2.
    """


class MissingExtraError(InputError):
    """An optional dependency is missing; the message is the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs: pip install 'bitwright[{extra}]'")
