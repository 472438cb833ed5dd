"""ONNX Runtime on the CPU, with every graph optimisation on.

What it really runs is read from the model that it saves behind its optimisations (`optimized_model_filepath`) and
from its profiler's trace, which names the operator and the element types of each kernel's operands.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy.typing as npt

from bitwright.hw_constraints.backends.base import (
    Arrays,
    ExecutedNode,
    KernelTime,
    PackagedBackend,
    Session,
    TensorSpec,
    artifact_label,
    check_inputs,
    one_line,
)
from bitwright.hw_constraints.machine import Machine, this_machine
from bitwright.hw_constraints.runtime_settings import DISABLED, EXACT, onnxruntime_settings
from bitwright.quant.errors import InputError

_PRECISION_OF = {
    "int8": "int8",
    "uint8": "int8",
    "int16": "int16",
    "uint16": "int16",
    "float8e4m3fn": "fp8",
    "float8e5m2": "fp8",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float": "float32",
    "double": "float64",
}
_QUANTIZES_INSIDE = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
_KERNEL_SUFFIX = "_kernel_time"


def precision_of_kernel(op: str, operands: Iterable[Mapping[str, list[int]]]) -> str:
    """What a kernel computes in, from the operand types in its trace entry.

    Scales are the only real-valued operands of an integer kernel and have at most one dimension; a real-valued
    operand of two or more dimensions is data.

    Args:
        op: the operator type.
        operands: one `{element type: shape}` for each operand, as ONNX Runtime's profiler writes it.
    """
    if op in _QUANTIZES_INSIDE:
        return "int8"
    typed = [(_PRECISION_OF.get(kind), shape) for operand in operands for kind, shape in operand.items()]
    data = [kind for kind, shape in typed if kind and kind.startswith(("float", "bfloat")) and len(shape) >= 2]
    codes = [kind for kind, _ in typed if kind in ("int8", "int16", "fp8")]
    if data:
        return data[0]
    if codes:
        return "int16" if "int16" in codes else codes[0]
    return next((kind for kind, _ in typed if kind), "other")


class UnnamedNodes:
    """Names for nodes that have none (those of inlined functions), the same in the trace and in the saved model.

    Both list nodes in the same topological order, so the count of each operator type identifies them.
    """

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def name(self, op: str) -> str:
        """The next one of an operator type."""
        self._count[op] += 1
        return f"unnamed {op} {self._count[op]}"


def read_trace(trace: Path) -> list[KernelTime]:
    """Medians of the kernel times in a profile that ONNX Runtime wrote; the first run (warm-up) is left out."""
    durations: dict[str, list[float]] = defaultdict(list)
    facts: dict[str, dict[str, Any]] = {}
    unnamed = UnnamedNodes()
    for event in json.loads(trace.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_SUFFIX):
            durations[event["args"]["node_index"]].append(float(event["dur"]))
            facts[event["args"]["node_index"]] = event["args"] | {"name": event["name"].removesuffix(_KERNEL_SUFFIX)}
    kernels = []
    for index, times in durations.items():
        op, name = facts[index]["op_name"], facts[index]["name"]
        kernels.append(
            KernelTime(
                name=unnamed.name(op) if name in ("", f"{op}_{index}") else name,
                op=op,
                time_us=median(times[1:] or times),
                provider=facts[index]["provider"],
                precision=precision_of_kernel(op, facts[index]["input_type_shape"]),
            )
        )
    return kernels


def model_operators(artifact: Path | bytes) -> frozenset[str]:
    """The operator types in a model's main graph; none for a file that is no model."""
    import onnx

    try:
        if isinstance(artifact, bytes):
            model = onnx.load_model_from_string(artifact)
        else:
            model = onnx.load(str(artifact), load_external_data=False)
    except Exception:  # left for the runtime to refuse
        return frozenset()
    return frozenset(node.op_type for node in model.graph.node)


class OnnxRuntimeSession:
    """A model in ONNX Runtime's CPU provider."""

    def __init__(self, artifact: Path | bytes, *, threads: int, machine: Machine) -> None:
        self.threads = threads
        self._artifact = artifact if isinstance(artifact, bytes) else str(artifact)
        self._label = artifact_label(artifact)
        self.settings = onnxruntime_settings(artifact, threads=threads, machine=machine)
        self._session = self._create_exact_if_possible()
        self.input_infos = tuple(map(_tensor_spec, self._session.get_inputs()))
        self.output_infos = tuple(map(_tensor_spec, self._session.get_outputs()))

    def _create_exact_if_possible(self) -> Any:
        """A session; without the option for exact products where ONNX Runtime itself stumbles over it.

        1.31.1 does when two weights share a zero point tensor ("Attempt to replace the existing tensor"). The settings
        then lack the option, and `proof` names the layers that may saturate.
        """
        try:
            return self._create()
        except InputError:
            if self.settings.pop(EXACT, None) is None:
                raise
            return self._create()

    def _create(self, *, profile_prefix: str = "", optimized_path: str = "") -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its errors are in the exceptions, its warnings about every saved layout
        for key, value in self.settings.items():
            if key.startswith("session."):
                options.add_session_config_entry(key, value)
        if profile_prefix:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        if optimized_path:
            options.optimized_model_filepath = optimized_path
        disabled = [each for each in self.settings.get(DISABLED, "").split(",") if each]
        try:
            return onnxruntime.InferenceSession(
                self._artifact, options, providers=self._providers(), disabled_optimizers=disabled
            )
        except Exception as error:  # its exception types share no base class
            raise InputError(f"{self._label}: onnxruntime cannot load it: {one_line(error)}") from error

    def _providers(self) -> list[Any]:
        return ["CPUExecutionProvider"]

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs once; see `Session.run`."""
        return self._run(self._session, inputs)

    def _run(self, session: Any, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        names = [spec.name for spec in self.output_infos]
        try:
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))
        except Exception as error:
            check_inputs(inputs, self.input_infos)
            raise InputError(f"{self._label}: onnxruntime cannot run it: {one_line(error)}") from error

    def profile(self, inputs: Arrays, runs: int = 10) -> list[KernelTime]:
        """Kernel times from a session with the profiler on; see `Session.profile`."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._create(profile_prefix=str(Path(folder) / "trace"))
            for _ in range(runs + 1):
                self._run(session, inputs)
            return read_trace(Path(session.end_profiling()))

    def executed_graph(self) -> tuple[ExecutedNode, ...]:
        """The nodes of the optimised model that ONNX Runtime saves; see `Session.executed_graph`."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            self._create(optimized_path=str(path))
            nodes = onnx.load(str(path), load_external_data=False).graph.node
        unnamed = UnnamedNodes()
        return tuple(
            ExecutedNode(
                name=node.name or unnamed.name(node.op_type),
                op=node.op_type,
                inputs=tuple(node.input),
                outputs=tuple(node.output),
            )
            for node in nodes
        )


def _tensor_spec(argument: Any) -> TensorSpec:
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    shape = tuple(dim if isinstance(dim, int) else None for dim in argument.shape)
    return TensorSpec(name=argument.name, dtype=dtype, shape=shape)


class OnnxRuntimeBackend(PackagedBackend):
    """ONNX Runtime's CPU provider."""

    name = "onnxruntime"
    reads = ("onnx", "ort")

    def _open(self, artifact: Path | bytes, *, threads: int) -> Session:
        return OnnxRuntimeSession(artifact, threads=threads, machine=this_machine())


BACKEND = OnnxRuntimeBackend()
