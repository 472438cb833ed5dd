"""ONNX Runtime's `onnxruntime_perf_test`, for boards whose image brings it and no Python package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.hw_constraints.transport.runner.runtimes.by_tool import SAMPLE_SECONDS, ByTool, found_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class PerfTest(ByTool):
    """Made-up inputs (-I), for a duration, on the CPU with all optimisations (onnxruntime/test/perftest/README.md)."""

    tool = "onnxruntime_perf_test"
    places = ("/usr/bin/onnxruntime-tests", "/usr/local/bin/onnxruntime/tools")
    install = "it comes with builds of ONNX Runtime from source, and with vendors' images"

    def prepare(self, path: str, folder: str, threads: int, run: Callable[[Sequence[str]], str]) -> Callable[[], float]:
        """Nothing is done once: the tool loads the model each time."""
        command = [self.path(), "-I", "-m", "duration", "-t", str(SAMPLE_SECONDS), "-x", str(threads), "-y", "1"]
        command += ["-e", "cpu", "-o", "99", path]

        def sample() -> float:
            return float(found_in(r"P50 Latency:\s*([\d.eE+-]+) s", run(command), self.tool)[1]) * 1e6

        return sample


RUNTIME = PerfTest()
