"""What a runtime says that it ran, read a second time and more simply than the proof does, to check the proof.

The untouched file is loaded, nothing is renamed or joined: of each convolution and matrix product only the precision
and the number of results count. A proof that names layers must give the same multiset.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bitwright.hw_constraints.proof import ProofReport, State
from bitwright.hw_constraints.proof.onnx_graph import random_inputs, read_onnx

WEIGHTED = re.compile(r"conv|gemm|matmul|fullyconnected", re.IGNORECASE)
INT8 = frozenset({"uint8", "int8", "u8", "i8"})

Kernels = Counter[tuple[str, tuple[int, ...]]]  # ("int8" or "float", sorted dimensions of the result) → how many


def claimed(report: ProofReport) -> Kernels:
    """What a proof says of the layers with weights."""
    graph = read_onnx(Path(report.file))
    layers = [layer for layer in report.layers if layer.is_weighted]
    return Counter(
        ("int8" if layer.state is State.INT8 else "float", _size(graph.shape(layer.output) or ())) for layer in layers
    )


def ran(report: ProofReport) -> Kernels:
    """What the runtime of a proof says that it ran, under the same options."""
    file = Path(report.file)
    return _openvino_kernels(file) if report.runtime == "openvino" else _onnxruntime_kernels(file, report.settings)


def _onnxruntime_kernels(file: Path, settings: Mapping[str, str]) -> Kernels:
    """From ONNX Runtime's profile of one run."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "trace")
        for key, value in settings.items():
            if key.startswith("session."):
                options.add_session_config_entry(key, value)
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        session.run(None, random_inputs(read_onnx(file)))
        events = json.loads(Path(session.end_profiling()).read_text())
    found: Kernels = Counter()
    for event in events:
        kernel = event.get("args", {})
        if event["name"].endswith("_kernel_time") and WEIGHTED.search(kernel["op_name"]):
            first_type = next(iter(kernel["input_type_shape"][0]))
            shape = next(iter(kernel["output_type_shape"][0].values()))
            found["int8" if first_type in INT8 else "float", _size(shape)] += 1
    return found


def _openvino_kernels(file: Path) -> Kernels:
    """From the model that OpenVINO's CPU plugin says it executes."""
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_NUM_THREADS": 1})
    found: Kernels = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        if WEIGHTED.search(facts.get("layerType", "")):
            shape = list(node.output(0).get_shape())
            found["int8" if facts["runtimePrecision"] in INT8 else "float", _size(shape)] += 1
    return found


def _size(shape: object) -> tuple[int, ...]:
    """Dimensions without ones, sorted: runtimes change layouts and drop axes."""
    return tuple(sorted(int(dim) for dim in shape if dim != 1))  # type: ignore[attr-defined]
