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
_ORDER = (
    "run",
    "validate",
    "ls",
    "targets",
    "lint",
    "quantize",
    "export",
    "prove",
    "measure",
    "profile",
    "search",
    "report",
    "compare",
)
# What these have finished serves the next call.
_KEEPING = {
    "run": "finished stages",
    "search": "finished stages",
    "quantize": "finished stages and tries",
    "kernels": "measured kernels",
    "autotune": "measured tries",
}
Parameters = ParamSpec("Parameters")


def build_app() -> typer.Typer:
    """The application with every command of `commands/`: what its modules list in `COMMANDS`, functions and groups."""
    import typer  # not at the top: `main` answers a Ctrl-C only once this file is imported

    from bitwright.experiments.command_group import CommandGroup, FallsBackToFirst, ordered_by

    app = typer.Typer(
        cls=ordered_by(_place),
        name="bitwright",
        help="Fits PyTorch networks to silicon.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    modules = [
        importlib.import_module(f"{commands.__name__}.{each.name}") for each in pkgutil.iter_modules(commands.__path__)
    ]
    for command in (each for module in modules for each in module.COMMANDS):
        if isinstance(command, CommandGroup):
            group = typer.Typer(cls=FallsBackToFirst, help=command.help, no_args_is_help=True)
            app.add_typer(group, name=command.name)
            for each in command.commands:
                group.command(each.__name__)(_exit_with(each))
        else:
            app.command(command.__name__)(_exit_with(command))
    return app


def _place(name: str) -> tuple[int, str]:
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
            _say_stopped(_KEEPING.get(command.__name__))
            code = INTERRUPTED
        except BrokenPipeError:
            # The reader of a pipe (head, less) has gone; the interpreter would complain again when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = 0
        raise typer.Exit(code)

    return run


def _say_stopped(kept: str | None = None) -> None:
    # `python -m` ends with a signal, not with a code, once Ctrl-C has left text given to `exec` (a data class, a named
    # tuple while it is imported), though it was caught behind it; text that ends well takes that back.
    eval("None")
    again = f"; {kept} are kept, go on with: {' '.join(['bitwright', *sys.argv[1:]])}" if kept else ""
    print(f"\nbitwright: stopped{again}", file=sys.stderr)


def main() -> None:
    """The entry point of the `bitwright` script."""
    sys.unraisablehook = _interrupt_again
    try:
        build_app()()
    except KeyboardInterrupt:  # while commands are imported, or after one has returned
        _say_stopped()
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        # Typer makes a silent exit of an interrupt while it reads the arguments.
        if isinstance(getattr(ended.__context__, "__cause__", None), KeyboardInterrupt):
            _say_stopped()
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
