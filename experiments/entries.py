"""`package.module:function`: the user's own code, found, called and checked, with each failure in plain words."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bitwright.quant.errors import InputError, suggestion


def load_entry(field: str, entry: str) -> Callable[..., Any]:
    """Imports what an entry names; modules beside the user (the current folder) are found, too.

    Args:
        field: the recipe's key, for messages (`model.entry`).
        entry: `package.module:function`.

    Raises:
        InputError: it cannot be imported, is not there, or cannot be called.
    """
    module_name, _, name = entry.partition(":")
    _look_beside_the_user()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(f"{error.name}."):
            raise _failed(field, entry, f"importing {module_name!r} raised", error) from error
        raise InputError(
            f"{field} = {entry!r}: there is no module {error.name!r} in {Path.cwd()} or among the installed packages"
        ) from None
    except (Exception, SystemExit) as error:  # the user's module may raise anything while it is imported
        raise _failed(field, entry, f"importing {module_name!r} raised", error) from error
    if not hasattr(module, name):
        names = [each for each in vars(module) if not each.startswith("_")]
        raise InputError(f"{field} = {entry!r}: {module.__file__} defines no {name!r}{suggestion(name, names)}")
    function = getattr(module, name)
    if not callable(function):
        raise InputError(f"{field} = {entry!r}: is {type(function).__name__}; expected a function")
    return function  # type: ignore[no-any-return]


def call_entry(field: str, entry: str, *args: Any, **kwargs: Any) -> Any:
    """Calls what an entry names.

    Raises:
        InputError: as `load_entry`, or the call raised; the message holds the line of the user's code.
    """
    function = load_entry(field, entry)
    try:
        return function(*args, **kwargs)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's function may raise anything, and end the process, too
        raise _failed(field, entry, "raised", error, function) from error


def wrong_result(field: str, entry: str, result: Any, expected: str) -> InputError:
    """The error for an entry that returned something else than it should."""
    return InputError(f"{field} = {entry!r}: returned {type(result).__name__}; expected {expected}")


def entry_fingerprint(entry: str) -> str:
    """Changes with the file that an entry stands in, so that results of older code are not reused.

    Files that this one imports are not followed: after a change there, run with `--again`.
    """
    _look_beside_the_user()
    try:
        spec = importlib.util.find_spec(entry.partition(":")[0])
    except (ImportError, ValueError):
        return "not found"
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return "not found"
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def _look_beside_the_user() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _failed(field: str, entry: str, what: str, error: Exception | SystemExit, function: Any = None) -> InputError:
    """With the last line of the traceback; with the function's own when the call itself did not fit."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    file, line, text = last.filename, last.lineno, last.line
    if file == __file__:
        code = getattr(function, "__code__", None)
        if code is None:
            return InputError(f"{field} = {entry!r}: {what} {type(error).__name__}: {error}")
        file, line = code.co_filename, code.co_firstlineno
        text = linecache.getline(file, line).strip()
    return InputError(f"{field} = {entry!r}: {what} {type(error).__name__}: {error}\n  at {file}:{line}: {text}")
