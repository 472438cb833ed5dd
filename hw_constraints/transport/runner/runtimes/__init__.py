"""The runtimes that the runner can drive: three in its own process, three through their vendors' tools.

Each file has one `RUNTIME`; `in_process` and `by_tool` say what one is.
"""

from __future__ import annotations

import importlib
from typing import Any

from bitwright.hw_constraints.transport.runner.refusal import Refusal

IN_PROCESS = ("litert", "onnxruntime", "openvino")  # these take inputs; tools make theirs up
NAMES = tuple(sorted((*IN_PROCESS, "benchmark_app", "onnxruntime_perf_test", "tensorrt")))


def runtime(name: str) -> Any:
    """The runtime of that name.

    Raises:
        Refusal: there is none.
    """
    if name not in NAMES:
        raise Refusal("unusable", f"unknown runtime {name!r}; there are: {', '.join(NAMES)}", final=True)
    return importlib.import_module(f"{__name__}.{name}").RUNTIME


def found() -> dict[str, dict[str, str]]:
    """Of each runtime its `version`, or what is `missing` and how to install it."""
    each = {}
    for name in NAMES:
        try:
            each[name] = {"version": runtime(name).version()}
        except Refusal as refusal:
            each[name] = {"missing": refusal.message}
    return each
