"""Facts about the machine, the installed versions and the state of the working tree; imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path

from bitwright.experiments.record import Git, Host
from bitwright.hw_constraints.machine import this_machine

PACKAGES = (
    "bitwright", "torch", "torchao", "numpy", "onnx", "onnxruntime", "openvino", "optuna", "ml_dtypes", "scikit-learn",
    "tensorboard",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Installed versions of the packages that results follow from."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **found}


def host() -> Host:
    """The machine."""
    machine = this_machine()
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    return Host(
        system=f"{platform.system()} {platform.release()}",
        architecture=machine.architecture,
        cpu=machine.cpu_model,
        cores=machine.cores,
        isa=tuple(sorted(machine.isa)),
        memory_bytes=int(memory.group(1)) * 1024 if memory else None,
        accelerators=tuple(sorted(_accelerators())),
    )


def git_state(folder: Path) -> Git | None:
    """Commit and whether anything differs from it; None outside a repository or without git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return Git(commit=commit, dirty=bool(_git(folder, "status", "--porcelain", "--untracked-files=no")))
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=10)
    return run.stdout.strip()


def _accelerators() -> list[str]:
    """NVIDIA devices by the driver's own listing."""
    informations = Path("/proc/driver/nvidia/gpus").glob("*/information")
    return [match.group(1).strip() for path in informations if (match := re.search(r"Model:\s*(.+)", _read(path)))]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
