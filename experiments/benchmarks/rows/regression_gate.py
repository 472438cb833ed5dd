"""Does `bitwright compare --measure` find a layer too many, and leave a file alone that is its own copy?

A chain of 20 convolutions beside one of 21 is 5 % slower, as the wall clock of a quiet machine would say; the gate has
to prove it, and must not prove anything of two copies of one file, which differ only in where memory lies.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.hw_constraints.measure.regression import Change, Regression, compare_files

ROW = "regression_gate"
RUNTIMES = ("onnxruntime", "openvino")
LAYERS = 20
MARGIN = 0.02
SECONDS = 8.0
CHANNELS, SIDE = 32, 28


def run(bench: Bench) -> list[Record]:
    """Compares a chain with its copy, with one more layer, and that one with it."""
    folder = bench.ours / ROW
    folder.mkdir(parents=True, exist_ok=True)
    chain, copy = _chain(folder / "chain.onnx", LAYERS), _chain(folder / "copy.onnx", LAYERS)
    longer = _chain(folder / "longer.onnx", LAYERS + 1)
    pairs = {"its copy": (chain, copy), "its copy, turned": (copy, chain), "a layer more": (chain, longer),
             "a layer less": (longer, chain)}  # fmt: skip
    found = {
        (name, runtime): compare_files(old, new, runtime, margin=MARGIN, seconds=SECONDS)
        for runtime in RUNTIMES
        for name, (old, new) in pairs.items()
    }
    table = [_line(name, runtime, each) for (name, runtime), each in found.items()]
    same = [each for (name, _), each in found.items() if "copy" in name]
    slower = [each for (name, _), each in found.items() if name == "a layer more"]
    false = sum(each.change is Change.SLOWER for each in same)
    proven = sum(each.change is Change.SLOWER for each in slower)
    return [
        record(
            f"{ROW}.false_alarms", area="hw_constraints", value=false, unit="of copies called slower", n=len(same),
            reach=Reach("=", 0), table=table,
        ),
        record(
            f"{ROW}.found", area="hw_constraints", value=proven, unit="of chains with a layer more proven slower",
            n=len(slower), reach=Reach("=", len(slower)),
        ),
    ]  # fmt: skip


def _line(name: str, runtime: str, found: Regression) -> dict[str, str]:
    return {
        "second against first": name,
        "runtime": runtime,
        "ratio": f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}]",
        "says": str(found.change),
        "processes": str(len(found.processes)),
        "disturbed rounds": str(found.disturbed_rounds),
    }


def _chain(file: Path, layers: int) -> Path:
    shape = (CHANNELS, CHANNELS, 3, 3)
    weight = (np.random.default_rng(0).standard_normal(shape) / np.sqrt(9 * CHANNELS)).astype(np.float32)
    values = ["x", *(f"y{index}" for index in range(layers))]
    nodes = [
        helper.make_node("Conv", [values[index], "w"], [values[index + 1]], pads=[1] * 4) for index in range(layers)
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info(values[-1], TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file
