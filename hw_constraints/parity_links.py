"""An ONNX file in ONNX Runtime as a link, at each optimisation level."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from bitwright.hw_constraints.machine import this_machine
from bitwright.quant.parity.link import Array, LinkTensor
from bitwright.quant.parity.onnx_link import OnnxLink

LEVELS = ("disabled", "basic", "extended", "all")


class OnnxRuntimeLink(OnnxLink):
    """An ONNX file in ONNX Runtime's CPU provider at one optimisation level.

    Only tensors that the optimised graph still has, and codes, are shown: asking for others would undo the fusions
    that are to be compared. The last level renames values as it changes layouts, so the one before it says which.
    """

    def __init__(self, path: Path, level: str = "all", name: str = "", *, without: Collection[str] = ()) -> None:
        """Reads a file.

        Args:
            path: an ONNX model.
            level: how far the runtime may optimise it.
            name: of the link.
            without: the runtime's passes that it may not run, by its own names (`parity_passes.passes_of`).
        """
        super().__init__(path, name or f"onnxruntime, optimisations: {level}")
        self.level, self._without = level, list(without)
        self.is_exact = level == "disabled"

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """What survives this level."""
        if self.level == "disabled":
            return self.network.tensors
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            self._load(self.network.model, level=self.level.replace("all", "extended"), optimized=path)
            graph = onnx.load(str(path), load_external_data=False).graph
        alive = {value for node in graph.node for value in node.output} | {each.name for each in graph.input}
        shown = self.network.shown
        return {name: each for name, each in self.network.tensors.items() if each.grid or shown[name].value in alive}

    def _open(
        self, model: onnx.ModelProto, *, level: str | None = None, optimized: Path | None = None, **options: Any
    ) -> Any:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        levels = onnxruntime.GraphOptimizationLevel
        settings.graph_optimization_level = {
            "disabled": levels.ORT_DISABLE_ALL,
            "basic": levels.ORT_ENABLE_BASIC,
            "extended": levels.ORT_ENABLE_EXTENDED,
            "all": levels.ORT_ENABLE_ALL,
        }[level or self.level]
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        if this_machine().saturates_u8s8:
            settings.add_session_config_entry("session.x64quantprecision", "1")
        if optimized is not None:
            settings.optimized_model_filepath = str(optimized)
        return onnxruntime.InferenceSession(
            model.SerializeToString(),
            settings,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=self._without,
        )

    def _infer(self, session: Any, names: Sequence[str], feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        return dict(zip(names, session.run(list(names), dict(feeds)), strict=True))
