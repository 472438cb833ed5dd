"""Sets a study aside, so that a search that was changed begins a new one and the old one stays whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna

from bitwright.nas.storage import DatabaseLost, close, study_place
from bitwright.quant.errors import InputError

_LOCK = ".lock"


def set_aside(
    folder: Path, *, database: str | None = None, name: str = "search", on_wait: Callable[[str], None]
) -> str | None:
    """Keeps a study and all its files under another name; the next search in the folder begins anew.

    The folder's content moves into `FOLDER.before-N`, the study last: what is cut off in between is taken up by setting
    aside again. In a shared database the study becomes `NAME-before-N`. No other driver can begin in between.

    Args:
        folder: of the search.
        database: see `search`.
        name: of the study in such a database.
        on_wait: told in words when the database does not answer.

    Returns:
        What the old study is called now; None when there is none.

    Raises:
        InputError: another driver has it, or the database cannot be used or goes away.
    """
    if not folder.exists():
        return None
    try:
        return _set_aside(folder, database, name, on_wait)
    except DatabaseLost:
        raise InputError(
            f"search.storage = {database!r} went away while study {name!r} was set aside; nothing is lost, give the "
            "same command again"
        ) from None


def _set_aside(folder: Path, database: str | None, name: str, on_wait: Callable[[str], None]) -> str | None:
    kept = None
    with study_place(folder, database=database, name=name, patient=False, on_wait=on_wait) as place:
        studies = {each.study_name for each in optuna.get_all_study_summaries(place.storage)}
        if place.name in studies and database is not None:
            kept = next(each for each in map(f"{name}-before-{{}}".format, range(1, len(studies) + 2))
                        if each not in studies)  # fmt: skip
            optuna.copy_study(
                from_study_name=name, from_storage=place.storage, to_storage=place.storage, to_study_name=kept
            )
            optuna.delete_study(study_name=name, storage=place.storage)
        elif place.name not in studies:
            return None
        close(place.storage)  # SQLite's files are moved while nobody has them open; the lock is still this process's
        aside = _move(folder)
    return str(aside) if kept is None else f"{kept}, its files in {aside}"


def _move(folder: Path) -> Path:
    number = 1
    while (folder.with_name(f"{folder.name}.before-{number}") / "study.db").exists():
        number += 1
    aside = folder.with_name(f"{folder.name}.before-{number}")
    aside.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda each: each.name.startswith("study.db")):
        if path.name != _LOCK:
            path.rename(aside / path.name)
    return aside
