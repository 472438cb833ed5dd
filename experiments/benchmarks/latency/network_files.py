"""Float and int8 files of the pool's networks, made once: `python -m …latency.network_files [SECONDS]`.

Latency does not depend on the values of weights, so they are random and calibration sees two random inputs. What
cannot be exported is kept as a reason. A slice of so many seconds ends between two networks; the next goes on there.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitwright.experiments.benchmarks import places
from bitwright.experiments.benchmarks.latency.pool import Variant, pool
from bitwright.experiments.benchmarks.peers.environments import LIBRARY

TARGET = "x86-vnni"
FORMATS = ("float32", "int8")
_SAMPLES = 2
_ALL_SECONDS = 1e9


@dataclass(frozen=True, kw_only=True)
class NetworkFiles:
    """A network's files.

    Attributes:
        files: by format.
        reason: why there are none.
    """

    files: dict[str, Path]
    reason: str = ""


def folder() -> Path:
    """Where all of them are kept."""
    return places.cache() / "latency_networks"


def network_files(variant: Variant) -> NetworkFiles:
    """A network's files, exported when they are not there."""
    here = folder() / variant.name
    if not (here / "made.json").exists():
        here.mkdir(parents=True, exist_ok=True)
        reason = _export(variant, here)
        (here / "made.json").write_text(json.dumps({"reason": reason}) + "\n", encoding="utf-8")
    reason = json.loads((here / "made.json").read_text(encoding="utf-8"))["reason"]
    return NetworkFiles(files={} if reason else {name: here / f"{name}.onnx" for name in FORMATS}, reason=reason)


def is_made(variant: Variant) -> bool:
    """Whether a network has been exported, or the reason kept why it cannot be."""
    return (folder() / variant.name / "made.json").exists()


def _export(variant: Variant, here: Path) -> str:
    """Writes both files; returns why not."""
    from bitwright.hw_constraints.target import load_target
    from bitwright.quant.capture import capture
    from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
    from bitwright.quant.ptq import quantize

    try:
        model, args = variant.make(places.peers_home() / LIBRARY)
        _give_norms_values(model)
        captured = capture(model, args)
        generator = torch.Generator().manual_seed(0)
        samples = [tuple(_like(arg, generator) for arg in args) for _ in range(_SAMPLES)]
        quantized = quantize(captured, load_target(TARGET).scheme(), samples, bias_correction=False)
        export_float(quantized.captured.graph, here / "float32.onnx")
        export_onnx_qdq(quantized, here / "int8.onnx")
    except Exception as error:  # whatever forward, capture and export of other people's networks raise
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
    return ""


def _give_norms_values(model: torch.nn.Module) -> None:
    """Untrained norms multiply by 1 and add 0, which runtimes leave out; trained ones do not."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        for name in ("weight", "bias"):
            values = getattr(module, name, None)
            if "norm" in type(module).__name__.lower() and isinstance(values, torch.Tensor) and values.dim() == 1:
                values.data += 0.1 * torch.randn(values.shape, generator=generator)


def _like(arg: Any, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(arg.shape, generator=generator)


def main() -> int:
    """Exports what is missing."""
    torch.set_num_threads(1)
    stop_at = time.monotonic() + float(sys.argv[1] if len(sys.argv) > 1 else _ALL_SECONDS)
    for variant in pool():
        if time.monotonic() > stop_at:
            break
        if not is_made(variant):
            made = network_files(variant)
            print(f"{variant.name}: {made.reason or 'made'}", flush=True)
    waiting = sum(not is_made(variant) for variant in pool())
    print(f"{waiting} to make")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
