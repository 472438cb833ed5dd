"""What `bitwright predict` does: an ONNX file's latency from a table, before anything is compiled or run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitwright.experiments.load_recipe import THIS_CPU, target_of_this_cpu
from bitwright.experiments.model_commands import check_runtime
from bitwright.experiments.tables import print_table
from bitwright.hw_constraints.predict.before_compiling import gain_of_graph
from bitwright.hw_constraints.predict.from_table import predictor_of
from bitwright.hw_constraints.predict.int8_gain import Int8Gain
from bitwright.hw_constraints.predict.prediction import NetworkPrediction
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.hw_constraints.table import KernelTable, TableKey
from bitwright.hw_constraints.target import Target, load_target
from bitwright.quant.errors import InputError
from bitwright.quant.onnx_import.reading import read_model

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What is known of a file.

    Attributes:
        file: as it stands.
        inputs: shapes that it is predicted for; a batch that the file leaves open is 1.
        gain: of int8, for a file in float.
        no_gain: why there is none for such a file.
        elsewhere: how what the table was measured on differs from this machine, in words.
    """

    file: NetworkPrediction
    inputs: tuple[tuple[int, ...], ...]
    gain: Int8Gain | None = None
    no_gain: str = ""
    elsewhere: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        gain = self.gain.to_json() if self.gain else None
        inputs = [list(shape) for shape in self.inputs]
        return {
            **self.file.to_json(),
            "inputs": inputs,
            "int8": gain,
            "no_int8": self.no_gain,
            "elsewhere": list(self.elsewhere),
        }


def predict_file(file: Path, table: Path, target: str | None) -> Predicted:
    """Predicts a file's latency, and for one in float what int8 would make of it.

    Args:
        file: ONNX, float or with Q/DQ.
        table: of the runtime and device that it is to run on.
        target: how int8 would be quantized; None takes this processor's.

    Raises:
        InputError: the file or the table is missing, damaged or empty, the file cannot be split into kernels, there is
            no such target, or it is not the table's runtime that runs it.
    """
    asked = None if target is None else load_target(target_of_this_cpu("--target") if target == THIS_CPU else target)
    read_model(file)  # before anything is learned from the table, which takes a while the first time
    measured = KernelTable.load(table)
    if not measured.measured:
        raise InputError(f"{table}: has no measured kernel; fill it first: bitwright measure kernels --out {table}")
    if asked is not None:
        check_runtime(asked, measured.key.runtime, f"--target = {asked.id!r}")
    predictor, elsewhere = predictor_of(measured), _elsewhere(measured.key)
    network = predictor.split(file)
    found = Predicted(file=predictor.network(network), inputs=network.inputs, elsewhere=elsewhere)
    if any(placed.kernel.format == "int8" for placed in network.kernels):
        return replace(found, no_gain="the file is in int8 already")
    try:
        return replace(found, gain=_gain(file, predictor, asked))
    except InputError as error:
        return replace(found, no_gain=str(error))


def _elsewhere(key: TableKey) -> tuple[str, ...]:
    """How a table's device, clocks and runtime differ from what is here; that it is not here is a difference, too."""
    try:
        return key.differences(TableKey.here(key.runtime, key.threads))
    except InputError:
        return (f"runtime {key.runtime}, not here",)


def _gain(file: Path, predictor: LatencyPredictor, target: Target | None) -> Int8Gain:
    from bitwright.quant.onnx_import import graph_from_onnx
    from bitwright.quant.plan import plan

    found = target or load_target(target_of_this_cpu("--target"))
    graph = graph_from_onnx(file).graph
    return gain_of_graph(predictor, graph, plan(graph, found.scheme()))


def print_prediction(found: Predicted, file: Path) -> None:
    """The latency, the costliest kernels, what is doubtful, and what int8 would do."""
    shapes = " and ".join("x".join(map(str, shape)) for shape in found.inputs)
    print(f"{file.name}: {found.file}")
    print(f"for one call on {shapes}")
    if found.elsewhere:
        print(f"the table is not of this machine, nor is the latency: {'; '.join(found.elsewhere)}")
    rows = list(_rows(found.file))
    count = len(found.file.layers)
    title = f"the {len(rows)} costliest of {count} kernels (all in --json)" if count > len(rows) else f"{count} kernels"
    print_table(("kernel", "layer", "µs", "known"), rows, title=f"\n{title}")
    print(f"beside kernels: {_overheads(found.file)}")
    _print_some("outside what was measured", found.file.doubts)
    if found.gain is not None:
        print(f"\n{found.gain}")
        _print_some("layers that lose by int8", [str(each) for each in found.gain.losers])
    elif found.no_gain:
        print(f"\nint8: {found.no_gain}")


def _overheads(found: NetworkPrediction) -> str:
    """Each that costs something; what a fit to whole networks takes off again is a correction, not a cost."""
    costs = [f"{name} {us:.1f} µs" for name, us in found.overheads.items() if us >= 0.05]
    off = -sum(us for us in found.overheads.values() if us <= -0.05)
    corrected = [f"{off:.1f} µs less than the kernels one by one"] if off else []
    return ", ".join([*costs, *corrected]) or "nothing"


def _rows(found: NetworkPrediction) -> Iterator[tuple[str, str, str, str]]:
    for layer in sorted(found.layers, key=lambda each: -each.us)[:_SHOWN]:
        known = "measured" if layer.measured else f"± {100 * layer.spread:.0f} %"
        yield str(layer.kernel), layer.layers[-1], f"{layer.us:.1f}", known


def _print_some(title: str, lines: Sequence[str]) -> None:
    if lines:
        more = f"; {len(lines) - _SHOWN} more in --json" if len(lines) > _SHOWN else ""
        print(f"\n{title} ({len(lines)}{more}):")
        print("\n".join(f"- {line}" for line in lines[:_SHOWN]))
