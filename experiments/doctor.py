"""Is the installation whole, and what can this machine do? Each check says what to do when it fails."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from bitwright.experiments.extensions import BACKENDS, RECIPES, TARGETS
from bitwright.experiments.record import Part
from bitwright.hw_constraints.machine import this_machine
from bitwright.quant.errors import InputError

State = Literal["ok", "missing", "failed"]
_NEEDED = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "optuna",
    "pydantic",
    "yaml",
    "sklearn",
    "tensorboard",
    "safetensors",
)


class Check(Part):
    """One thing that was looked at; `missing` is optional, `failed` is not."""

    name: str
    state: State
    found: str


def checks() -> list[Check]:
    """Looks at everything."""
    return [_python(), *_packages(), *_runtimes(), *_shipped(), _processor(), _disk(), _chromium()]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    state: State = "ok" if sys.version_info >= (3, 11) else "failed"
    return Check(name="python", state=state, found=version)


def _packages() -> Iterator[Check]:
    for name in _NEEDED:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a broken installation raises anything
            advice = f"{type(error).__name__}: {error}; mend with: pip install --force-reinstall bitwright"
            yield Check(name=f"package {name}", state="failed", found=advice)
        else:
            yield Check(name=f"package {name}", state="ok", found=str(getattr(module, "__version__", "")))


def _runtimes() -> Iterator[Check]:
    from bitwright.experiments.workbench import require_runtime
    from bitwright.hw_constraints.backends import get_backend

    for name in BACKENDS.names():
        try:
            require_runtime(name)
        except InputError as error:
            yield Check(name=f"runtime {name}", state="missing", found=str(error))
        else:
            yield Check(name=f"runtime {name}", state="ok", found=get_backend(name).version())


def _shipped() -> Iterator[Check]:
    from bitwright.experiments.load_recipe import load_recipe
    from bitwright.hw_constraints.target import load_target

    for kind, names, load in (("target", TARGETS.names(), load_target), ("recipe", RECIPES.names(), load_recipe)):
        try:
            for name in names:
                load(name)
        except InputError as error:
            yield Check(name=f"{kind}s", state="failed", found=str(error))
        else:
            yield Check(name=f"{kind}s", state="ok" if names else "failed", found=", ".join(names) or "none found")


def _processor() -> Check:
    machine = this_machine()
    if machine.saturates_u8s8:
        note = "no VNNI: u8 x s8 kernels add in 16 bits and can saturate; target x86-avx2 avoids that"
    elif machine.has_int8_dot_product:
        note = "8-bit dot products in hardware"
    else:
        note = "no 8-bit dot products known"
    return Check(name="processor", state="ok", found=f"{machine.cpu_model}, {machine.cores} cores; {note}")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "probe").write_bytes(b"0")
    return Check(name="disk", state="ok" if free > 1e9 else "failed", found=f"{free / 1e9:.1f} GB free in {Path.cwd()}")


def _chromium() -> Check:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    missing = "only a test needs it: apt-get install chromium"
    return Check(name="chromium", state="ok" if path else "missing", found=path or missing)
