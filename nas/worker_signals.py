"""Loaded into each worker process: Ctrl-C is the driver's to handle, which lets what is running finish."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by Dask in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
