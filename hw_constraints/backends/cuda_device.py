"""The CUDA device that torch sees: what the runtimes on it need to know before they are loaded."""

from __future__ import annotations

import os
from pathlib import Path


def lacking_device() -> str | None:
    """Why torch cannot use a CUDA device here; None when it can."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "torch finds no CUDA device"


def device_name() -> str:
    """The device's name with its compute capability: `NVIDIA H100 80GB HBM3 sm_90`."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} sm_{major}{minor}"


def cache_folder() -> Path:
    """Where caches that only hold for this device lie, by the XDG Base Directory specification; it is made."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "bitwright" / device_name().replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
