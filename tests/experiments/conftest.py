"""The command line in this process: what each command would spend on importing torch, these tests spend once."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from bitwright.experiments import cli


class Done(NamedTuple):
    """What `subprocess.run` would give."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """`bitwright ARGUMENTS` in a folder; modules named like its files are forgotten before and afterwards."""

    def run(folder: Path, *arguments: Any) -> Done:
        with monkeypatch.context() as here:
            here.chdir(folder)
            here.setattr(sys, "path", [str(folder), *sys.path])
            _forget(folder)
            try:
                done = CliRunner().invoke(cli.build_app(), [*map(str, arguments)])
            finally:
                _forget(folder)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


def _forget(folder: Path) -> None:
    for file in folder.glob("*.py"):
        sys.modules.pop(file.stem, None)
