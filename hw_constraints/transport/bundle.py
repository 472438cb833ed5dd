"""The runner as one file: a zip archive that Python runs (PEP 441), with the modules that both ends share."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib import import_module
from pathlib import Path

# What the runner's own modules import; a test holds that the list is whole and that Python 3.8 can read it.
SHARED = (
    "bitwright.hw_constraints.machine",
    "bitwright.hw_constraints.measure.conditions",
    "bitwright.hw_constraints.measure.location",
    "bitwright.hw_constraints.measure.made_up",
    "bitwright.hw_constraints.measure.rounds",
    "bitwright.hw_constraints.onnx_contents",
    "bitwright.hw_constraints.runtime_settings",
    "bitwright.quant.errors",
)
_RUNNER = "bitwright.hw_constraints.transport.runner"
_MAIN = f"import sys\n\nfrom {_RUNNER}.main import main\n\nsys.exit(main())\n"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows: the same sources give the same bytes


@cache
def bundle() -> bytes:
    """The archive."""
    files = {"__main__.py": _MAIN.encode(), **{_inside(name): _source(name) for name in SHARED}, **_runner_files()}
    folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    for folder in folders:  # empty, because the packages' own bring their whole floors with them
        files.setdefault(f"{folder}/__init__.py", b"")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(files):
            archive.writestr(zipfile.ZipInfo(path, _DATE), files[path])
    return stream.getvalue()


def receiver() -> bytes:
    """The source text that receives files before anything is there."""
    return _source(f"{_RUNNER}.receive")


def _runner_files() -> dict[str, bytes]:
    root = Path(str(import_module(_RUNNER).__file__)).parent
    prefix = _RUNNER.replace(".", "/")
    return {
        f"{prefix}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in root.rglob("*.py")
        if path.name != "receive.py"
    }


def _inside(name: str) -> str:
    return name.replace(".", "/") + ".py"


def _source(name: str) -> bytes:
    package, _, module = name.rpartition(".")
    return (Path(str(import_module(package).__file__)).parent / f"{module}.py").read_bytes()
