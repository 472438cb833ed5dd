"""Parity of a network with two gigabytes of activations, in a process of its own: what it holds above the network.

Layer by layer, a captured network beside its file in ONNX Runtime: streamed in stretches, and with all tensors kept.
What the network itself needs is the peak behind one plain run of both sides.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "parity_memory"
MIB = 2**20
BLOCKS, CHANNELS, SIDE = 171, 4, 512  # three tensors of 4 MiB a block: 2,052 MiB


def run(bench: Bench) -> list[Record]:
    """Measures both ways."""
    streamed, kept = _measured("streamed"), _measured("kept")
    table = [{"way": "streamed", **streamed}, {"way": "all kept", **kept}]

    def figure(name: str, value: float, unit: str, reach: Reach | None = None) -> Record:
        return record(f"{ROW}.{name}", area="parity", value=value, unit=unit, n=1, reach=reach, table=table)

    return [
        figure("above_the_network", streamed["MB above the network"], "MB", Reach("≤", 500)),
        figure("activations", streamed["MB of activations"], "MB", Reach("≥", 2000)),
        figure("all_kept", kept["MB above the network"], "MB"),
    ]


def _measured(way: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", __name__, way], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(way: str) -> dict[str, Any]:
    """In this process, which should have done nothing else."""
    import resource
    import tempfile
    import time
    from pathlib import Path

    import torch

    from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
    from bitwright.quant.capture import capture
    from bitwright.quant.export.onnx_qdq import export_float
    from bitwright.quant.parity import Inputs, compare_links
    from bitwright.quant.parity.stretches import ROOM
    from bitwright.quant.parity.torch_links import CapturedLink

    def peak_mb() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

    torch.set_num_threads(1)
    image = torch.randn(1, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    captured = capture(_network(), (image,))
    with tempfile.TemporaryDirectory() as folder:
        first = CapturedLink(captured)
        second = OnnxRuntimeLink(export_float(captured.graph, Path(folder) / "float.onnx"), "disabled")
        for link in (first, second):
            link.run(Inputs(args=(image,)))
        before, begin = peak_mb(), time.perf_counter()
        room = ROOM if way == "streamed" else float("inf")
        found = compare_links(first, second, [Inputs(args=(image,))], room=room)
        seconds = time.perf_counter() - begin
    sizes = (each.elements for each in captured.graph.tensors.values() if None not in each.shape)
    return {
        "MB of activations": 4 * sum(sizes) / 1e6,
        "MB above the network": peak_mb() - before,
        "MB of the network": before,
        "layers": len(found.layers),
        "agrees": found.agrees,
        "seconds": seconds,
    }


def _network() -> Any:
    """Blocks of a pointwise convolution, an activation and a sum: many activations for few operations."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.relu(self.conv(x))

    torch.manual_seed(0)
    return nn.Sequential(*(Block() for _ in range(BLOCKS))).eval()


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
