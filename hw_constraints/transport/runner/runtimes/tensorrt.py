"""TensorRT through `trtexec`: an engine is built once, each sample runs it for a while."""

from __future__ import annotations

import json
import os
from statistics import median
from typing import TYPE_CHECKING

from bitwright.hw_constraints.transport.runner.refusal import Refusal
from bitwright.hw_constraints.transport.runner.runtimes.by_tool import SAMPLE_SECONDS, ByTool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_WARM_UP_MS = 200


class TrtExec(ByTool):
    """The precisions are those that the file says (strong typing); times are the GPU's, without transfers."""

    tool = "trtexec"
    places = ("/usr/src/tensorrt/bin", "/opt/tensorrt/bin")
    install = "it comes with TensorRT (apt install libnvinfer-bin); JetPack has it in /usr/src/tensorrt/bin"

    def prepare(self, path: str, folder: str, threads: int, run: Callable[[Sequence[str]], str]) -> Callable[[], float]:
        """Builds the engine."""
        engine, trace = os.path.join(folder, "engine"), os.path.join(folder, "times.json")
        build = [self.path(), f"--onnx={path}", f"--saveEngine={engine}", "--skipInference"]
        try:
            run([*build, "--stronglyTyped"])
        except Refusal as refusal:
            if "stronglyTyped" not in refusal.message:
                raise
            run([*build, "--int8"])  # TensorRT 8 knows no strong typing; Q/DQ needs the flag there
        command = [self.path(), f"--loadEngine={engine}", f"--exportTimes={trace}", f"--duration={SAMPLE_SECONDS}"]
        command += [f"--warmUp={_WARM_UP_MS}", "--useSpinWait", "--noDataTransfers"]

        def sample() -> float:
            run(command)
            with open(trace, encoding="utf-8") as file:
                return median(float(each["computeMs"]) for each in json.load(file)) * 1e3

        return sample


RUNTIME = TrtExec()
