"""ONNX Runtime on another machine: its profile, and the optimised model that it saves (`optimized_model_filepath`).

The profile names each kernel's node, operator, element types and provider. Nodes that were fused carry one of their
names; the optimised model adds the values that they write, and those keep the file's names.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from bitwright.hw_constraints.backends import ExecutedNode
from bitwright.hw_constraints.proof.tools.base import ToolReport
from bitwright.hw_constraints.proof.tools.report_file import ReportFile
from bitwright.quant.errors import InputError

_PROFILE, _MODEL = "profile", "optimised model"
_PROVIDER = "CPUExecutionProvider"


class OnnxRuntime:
    """A profile of ONNX Runtime."""

    name = "onnxruntime"
    title = "ONNX Runtime"

    def role(self, file: ReportFile) -> str | None:
        """A profile is a list of trace events with `args.op_name`; the other file is a model."""
        if file.path.suffix == ".onnx":
            return _MODEL
        events = file.json if isinstance(file.json, list) else []
        if any(isinstance(e, dict) and e.get("cat") == "Node" and "op_name" in (e.get("args") or ()) for e in events):
            return _PROFILE
        return None

    def read(self, files: Mapping[str, ReportFile]) -> ToolReport:
        """Medians over the profile's runs; the first run, which warms up, is left out."""
        from bitwright.hw_constraints.backends.onnxruntime import read_trace

        if _PROFILE not in files:
            raise InputError(f"{files[_MODEL].path}: an optimised model alone says no times: give the profile as well")
        kernels = tuple(read_trace(files[_PROFILE].path))
        executed = tuple(ExecutedNode(name=kernel.name, op=kernel.op) for kernel in kernels)
        notes = []
        if _MODEL in files:
            executed = _with_values(executed, files[_MODEL].path)
        else:
            notes.append("without the optimised model, layers that were fused are found by name only")
        # A provider that compiles gives one node for each region that it took, named after itself.
        opaque = frozenset(each.name for each in kernels if each.provider != _PROVIDER and each.provider in each.name)
        if opaque:
            notes.append(
                f"{len(opaque)} kernels run whole regions of the network ({', '.join(sorted(opaque)[:2])}): "
                "profile the provider itself to see their layers"
            )
        others = sorted({kernel.provider for kernel in kernels} - {_PROVIDER})
        if others:
            notes.append(
                f"kernels of {', '.join(others)} are timed on the host: "
                "a device that works asynchronously may take longer than that"
            )
        return ToolReport(
            kernels=kernels,
            executed=executed,
            wall_us=_wall_us(files[_PROFILE]),
            shapes=_shapes(files[_PROFILE]),
            opaque=opaque,
            notes=tuple(notes),
        )

    def how(self, model: Path) -> str:
        """onnxruntime_perf_test is part of a build from source; the same from Python needs the wheel alone."""
        onnx, stem = shlex.quote(str(model)), shlex.quote(str(model.with_suffix("")))
        return (
            f"onnxruntime_perf_test -e cpu -x 1 -y 1 -r 20 -I -p {stem}.profile -u {stem}.optimised.onnx {onnx}\n"
            f"bitwright prove {onnx} --from {stem}.profile_*.json --from {stem}.optimised.onnx\n"
            "# from Python: options.enable_profiling = True, options.profile_file_prefix and "
            "options.optimized_model_filepath"
        )


def _with_values(executed: tuple[ExecutedNode, ...], path: Path) -> tuple[ExecutedNode, ...]:
    from bitwright.hw_constraints.backends.onnxruntime import UnnamedNodes
    from bitwright.hw_constraints.proof.onnx_graph import read_onnx

    unnamed = UnnamedNodes()
    nodes = {node.name or unnamed.name(node.op_type): node for node in read_onnx(path).nodes}
    found = [each for each in executed if each.name in nodes]
    if not found:
        raise InputError(f"{path}: has none of the profile's nodes; save both in one session")
    return tuple(
        ExecutedNode(
            name=each.name,
            op=each.op,
            inputs=tuple(nodes[each.name].input) if each.name in nodes else (),
            outputs=tuple(nodes[each.name].output) if each.name in nodes else (),
        )
        for each in executed
    )


def _shapes(file: ReportFile) -> dict[str, tuple[int, ...]]:
    """What each node writes first."""
    shapes = {}
    for event in file.json:
        results = event.get("args", {}).get("output_type_shape") if event.get("cat") == "Node" else None
        if results:
            name = event["name"].removesuffix("_kernel_time")
            shapes[name] = tuple(next(iter(results[0].values()), ()))
    return shapes


def _wall_us(file: ReportFile) -> float | None:
    """Median of the events that span one whole run; the first warms up."""
    from statistics import median

    runs = [float(event["dur"]) for event in file.json if event.get("name") == "model_run" and "dur" in event]
    return median(runs[1:] or runs) if runs else None


TOOL = OnnxRuntime()
