"""OpenVINO's `benchmark_app`, for devices and plugins that are used through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.hw_constraints.transport.runner.runtimes.by_tool import SAMPLE_SECONDS, ByTool, found_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_US_OF = {"us": 1.0, "ms": 1e3}


class BenchmarkApp(ByTool):
    """One synchronous stream on the CPU; what it prints has more digits than its report."""

    tool = "benchmark_app"
    install = "pip install openvino"

    def prepare(self, path: str, folder: str, threads: int, run: Callable[[Sequence[str]], str]) -> Callable[[], float]:
        """Nothing is done once: the tool compiles the model each time."""
        command = [self.path(), "-m", path, "-d", "CPU", "-api", "sync", "-hint", "none", "-nstreams", "1"]
        command += ["-nthreads", str(threads), "-infer_precision", "f32", "-t", str(SAMPLE_SECONDS)]

        def sample() -> float:
            match = found_in(r"Median:\s+([\d.]+) (us|ms)", run(command), self.tool)
            return float(match[1]) * _US_OF[match[2]]

        return sample


RUNTIME = BenchmarkApp()
