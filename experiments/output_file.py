"""A file that a command was asked to write: looked at before the network takes its time, and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bitwright.quant.errors import InputError

PICTURES = (".png", ".svg", ".pdf")


def check_output(option: str, file: Path | None, suffixes: Sequence[str] = ()) -> None:
    """Refuses what cannot be written, before anything is computed for it.

    Args:
        option: `--picture`, for messages.
        file: what the user named; None where the option was not given.
        suffixes: the endings that the command can write; any when there are none.

    Raises:
        InputError: another ending, a folder, or a file in no folder.
    """
    if file is None:
        return
    if suffixes and file.suffix.lower() not in suffixes:
        raise InputError(f"{option} = {str(file)!r}; expected a name that ends in {', '.join(suffixes)}")
    if file.is_dir():
        raise InputError(f"{option} = {str(file)!r}: is a folder; name a file in it")
    if not file.parent.is_dir():
        raise InputError(f"{option} = {str(file)!r}: there is no folder {str(file.parent)!r}; make it first")


def check_folder(option: str, folder: Path | None) -> None:
    """Refuses what cannot be a folder to write into; one that is not there yet is made when it is written.

    Args:
        option: `--tensorboard`, for messages.
        folder: what the user named; None where the option was not given.

    Raises:
        InputError: it, or what it is to lie in, is a file.
    """
    if folder is None:
        return
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise InputError(f"{option} = {str(folder)!r}: {str(place)!r} is a file; name a folder")
            return


@contextmanager
def writing(option: str, file: Path) -> Iterator[None]:
    """Around the writing itself.

    Raises:
        InputError: the system refuses it: no permission, a full disk.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{option} = {str(file)!r}: cannot be written ({error.strerror or error}); name another file"
        ) from error
