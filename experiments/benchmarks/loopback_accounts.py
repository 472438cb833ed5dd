"""Two accounts on the loopback interface's `sshd`: users of their own where root may make them, else two folders."""

from __future__ import annotations

import getpass
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_NAMES = ("bitwright-a", "bitwright-b")
_PROBE = "import numpy, onnxruntime"


@dataclass(frozen=True)
class Account:
    """Who is let in, and where on the device it works.

    Attributes:
        user: the name.
        folder: its folder.
        python: an interpreter that it can run, with ONNX Runtime.
    """

    user: str
    folder: Path
    python: str


@contextmanager
def two_accounts(root: Path) -> Iterator[tuple[Account, Account]]:
    """Two accounts below a folder, removed afterwards; of one user where there cannot be two."""
    root.chmod(0o755)
    if os.geteuid() == 0 and shutil.which("useradd"):
        made = []
        try:
            for name in _NAMES:
                home = root / name
                # "*" is no password either, but "!", the default, is a locked account for an sshd without PAM.
                command = ["useradd", "-m", "-d", str(home), "-s", "/bin/sh", "-p", "*", name]
                subprocess.run(command, check=True, capture_output=True)
                made.append(name)
            python = _interpreter(root, _NAMES[0])
            if python:
                first, second = (Account(name, root / name / "device", python) for name in _NAMES)
                yield first, second
                return
        finally:
            for name in made:
                subprocess.run(["pkill", "-KILL", "-u", name], check=False)
                subprocess.run(["userdel", "-f", name], check=False, capture_output=True)
    user = getpass.getuser()
    yield Account(user, root / "a", sys.executable), Account(user, root / "b", sys.executable)


def _interpreter(root: Path, user: str) -> str | None:
    """This interpreter, or the system's with this one's packages, where the account can read them."""
    wrapper = root / "python3"
    packages = os.pathsep.join(site.getsitepackages())
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={packages}\nexport PYTHONPATH\nexec /usr/bin/python3 "$@"\n')
    wrapper.chmod(0o755)
    for python in (sys.executable, str(wrapper)):
        tried = subprocess.run(["runuser", "-u", user, "--", python, "-c", _PROBE], capture_output=True, check=False)
        if tried.returncode == 0:
            return python
    return None
