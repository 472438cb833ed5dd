"""The command line: `bitwright COMMAND`. Each file in `commands/` adds its own; what is heavy is imported when it runs.

Exit codes: 0 good, 1 findings or a failed gate, 2 misuse, 130 interrupted.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

from bitwright.experiments import commands
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import typer

MISUSE, INTERRUPTED = 2, 130
# In the help, the way most people meet them; commands that are not named here follow.
_ORDER = ("run", "validate", "ls", "targets", "lint", "quantize", "prove", "measure", "search", "report", "compare")
# What these have finished serves the next call.
_KEEPING = ("run", "search")
Parameters = ParamSpec("Parameters")


def build_app() -> typer.Typer:
    """The application with every command of `commands/`: the functions that its modules list in `COMMANDS`."""
    import typer  # not at the top: `main` answers a Ctrl-C only once this file is imported

    app = typer.Typer(
        name="bitwright",
        help="Fits PyTorch networks to silicon.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    modules = [
        importlib.import_module(f"{commands.__name__}.{each.name}") for each in pkgutil.iter_modules(commands.__path__)
    ]
    for command in sorted((each for module in modules for each in module.COMMANDS), key=_place):
        app.command(command.__name__)(_exit_with(command))
    return app


def _place(command: Callable[..., int]) -> tuple[int, str]:
    name = command.__name__
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _exit_with(command: Callable[Parameters, int]) -> Callable[Parameters, None]:
    """Ends the process with what the command returns; what the user did wrong is one message, never a traceback."""
    import typer

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except InputError as error:
            print(f"bitwright: {error}", file=sys.stderr)
            code = MISUSE
        except KeyboardInterrupt:
            _say_stopped(keeps=command.__name__ in _KEEPING)
            code = INTERRUPTED
        except BrokenPipeError:
            # The reader of a pipe (head, less) has gone; the interpreter would complain again when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = 0
        raise typer.Exit(code)

    return run


def _say_stopped(*, keeps: bool) -> None:
    again = f"; finished stages are kept, go on with: {' '.join(['bitwright', *sys.argv[1:]])}" if keeps else ""
    print(f"\nbitwright: stopped{again}", file=sys.stderr)


def main() -> None:
    """The entry point of the `bitwright` script."""
    sys.unraisablehook = _interrupt_again
    try:
        build_app()()
    except KeyboardInterrupt:  # while commands are imported, or after one has returned
        _say_stopped(keeps=False)
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        # Typer makes a silent exit of an interrupt while it reads the arguments.
        if isinstance(getattr(ended.__context__, "__cause__", None), KeyboardInterrupt):
            _say_stopped(keeps=False)
        raise


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Repeats a Ctrl-C that met native code which cannot raise it (pydantic's, while it is imported)."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        # A moment later: raised in this hook it would be lost as well.
        main_thread = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


if __name__ == "__main__":
    main()
