"""The process behind `measure_in_subprocess`: reads a request from standard input, writes the measurement as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.measure.files import measure_files
from bitwright.quant.errors import InputError


def main() -> int:
    """Serves one request; exit code 2 when it asks for something that cannot be."""
    request = json.load(sys.stdin)
    inputs: dict[str, dict[str, npt.NDArray[Any]]] = {}
    with np.load(request["inputs"]) as stored:
        for key in stored.files:
            name, _, tensor = key.partition("\n")
            inputs.setdefault(name, {})[tensor] = stored[key]
    files = {name: (Path(path), runtime) for name, (path, runtime) in request["files"].items()}
    try:
        measurement = measure_files(files, inputs=inputs, **request["options"])
    except InputError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 2
    print(json.dumps(measurement.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
