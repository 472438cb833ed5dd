"""torch.onnx's own exporter: one of torchvision's architectures as an ONNX file."""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from networks import torchvision_models


def main() -> None:
    """Reads a request (JSON: library, name, settings, shape, opset, folder), writes an answer (JSON: file, wall_s)."""
    request = json.loads(Path(sys.argv[1]).read_text())
    file = Path(request["folder"]) / "model.onnx"
    wall_s = export(request, file)
    versions = {name: metadata.version(name) for name in ("torch", "onnx", "onnxscript")}
    Path(sys.argv[2]).write_text(json.dumps({"file": str(file), "wall_s": wall_s, "versions": versions}, indent=1))


def export(request: dict[str, Any], file: Path) -> float:
    """Writes the file; returns the seconds that the exporter took."""
    models = torchvision_models(request["library"])
    torch.manual_seed(0)
    network = models.get_model(request["name"], weights=None, **request["settings"]).eval()
    start = time.perf_counter()
    torch.onnx.export(
        network,
        (torch.randn(*request["shape"]),),
        str(file),
        dynamo=True,
        opset_version=request["opset"],
        external_data=False,
        verbose=False,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
