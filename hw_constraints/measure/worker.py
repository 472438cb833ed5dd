"""The process behind `measure_in_subprocess`: reads a request from standard input, writes the measurement as JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.measure.files import measure_files
from bitwright.hw_constraints.measure.process import serve


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Serves one request of `measure_in_subprocess`."""
    inputs: dict[str, dict[str, npt.NDArray[Any]]] = {}
    with np.load(request["inputs"]) as stored:
        for key in stored.files:
            name, _, tensor = key.partition("\n")
            inputs.setdefault(name, {})[tensor] = stored[key]
    files = {name: (Path(path), runtime) for name, (path, runtime) in request["files"].items()}
    return measure_files(files, inputs=inputs, **request["options"]).to_json()


if __name__ == "__main__":
    sys.exit(serve(measure))
