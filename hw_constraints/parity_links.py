"""The links that runtimes run: an ONNX file in ONNX Runtime at each optimisation level, and in OpenVINO."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from bitwright.hw_constraints.backends.base import one_line
from bitwright.hw_constraints.machine import this_machine
from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.onnx_network import OnnxNetwork
from bitwright.quant.parity.results import Inputs

LEVELS = ("disabled", "basic", "extended", "all")


class OnnxRuntimeLink:
    """An ONNX file in ONNX Runtime's CPU provider at one optimisation level.

    Only tensors that the optimised graph still has, and codes, are shown: asking for others would undo the fusions
    that are to be compared. The last level renames values as it changes layouts, so the one before it says which.
    """

    takes_tensors = True
    replaced: Mapping[str, str] = {}

    def __init__(self, path: Path, level: str = "all", name: str = "", *, without: Collection[str] = ()) -> None:
        """Reads a file.

        Args:
            path: an ONNX model.
            level: how far the runtime may optimise it.
            name: of the link.
            without: the runtime's passes that it may not run, by its own names (`parity_passes.passes_of`).
        """
        self.network, self.level, self._without = OnnxNetwork(path), level, list(without)
        self.name = name or f"onnxruntime, optimisations: {level}"
        self._sessions: dict[tuple[frozenset[str], frozenset[str]], Any] = {}

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """What survives this level."""
        if self.level == "disabled":
            return self.network.tensors
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            self._open(self.network.model, level=self.level.replace("all", "extended"), optimized=path)
            nodes = onnx.load(str(path), load_external_data=False).graph.node
        alive = {value for node in nodes for value in node.output}
        shown = self.network.shown
        return {name: each for name, each in self.network.tensors.items() if each.grid or shown[name].value in alive}

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """Runs once; see `Link.run`."""
        given = given or {}
        key = frozenset(wanted), frozenset(given)
        if key not in self._sessions:
            exact = self.level == "disabled"  # there is no fusion that it would undo
            cut = self.network.cut(given, wanted, unrounded=exact) if given else None
            model = cut or self.network.with_outputs(wanted, unrounded=exact)
            self._sessions = {key: self._open(model)}  # one at a time: each holds the weights
        session = self._sessions[key]
        feeds = self.network.feeds(inputs, given, nudge=nudge)
        entering = {each.name for each in session.get_inputs()}
        names = [each.name for each in session.get_outputs()]
        try:
            results = session.run(names, {name: value for name, value in feeds.items() if name in entering})
        except Exception as error:  # its exception types share no base class
            raise LinkError(f"{self.network.path}: {self.name} cannot run it: {one_line(error)}") from error
        return self.network.recording(dict(zip(names, results, strict=True)), wanted)

    def _open(self, model: onnx.ModelProto, *, level: str | None = None, optimized: Path | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = {
            "disabled": levels.ORT_DISABLE_ALL,
            "basic": levels.ORT_ENABLE_BASIC,
            "extended": levels.ORT_ENABLE_EXTENDED,
            "all": levels.ORT_ENABLE_ALL,
        }[level or self.level]
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if this_machine().saturates_u8s8:
            options.add_session_config_entry("session.x64quantprecision", "1")
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        try:
            return onnxruntime.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=self._without,
            )
        except Exception as error:
            raise LinkError(f"{self.network.path}: {self.name} cannot load it: {one_line(error)}") from error
