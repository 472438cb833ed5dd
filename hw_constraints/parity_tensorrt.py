"""TensorRT as links: an ONNX file with any of its tensors as results of the engine, or an engine as it was built.

A tensor that is asked for is marked as an output of the network before the engine is built, which keeps layers from
being fused over it; so only those are shown that TensorRT's own graph of the whole file still has, and codes. Not yet
run on a device, as the backend itself (`backends/tensorrt.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from bitwright.quant.errors import InputError
from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.nudge import Nudge
from bitwright.quant.parity.onnx_link import OnnxLink
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import array_arguments


class TensorRTLink(OnnxLink):
    """An ONNX file in TensorRT, strongly typed."""

    def __init__(self, path: Path, name: str = "tensorrt") -> None:
        super().__init__(path, name)

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """What the engine of the whole file still has: what its layers read and write by the file's names."""
        layers = self._load(self.network.model).executed_graph()
        alive = {value for layer in layers for value in (*layer.inputs, *layer.outputs)}
        shown = self.network.shown
        return {name: each for name, each in self.network.tensors.items() if each.grid or shown[name].value in alive}

    def _open(self, model: onnx.ModelProto, **options: Any) -> Any:
        return _session(model.SerializeToString())

    def _infer(self, session: Any, names: Sequence[str], feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        found: Mapping[str, Array] = session.run(dict(feeds))
        return {name: found[name] for name in names}


class EngineLink:
    """A built engine (`.plan`, `.engine`): results alone."""

    takes_tensors = False
    replaced: Mapping[str, str] = {}
    tensors: Mapping[str, LinkTensor] = {}

    def __init__(self, path: Path, name: str = "tensorrt engine") -> None:
        """Loads a file.

        Raises:
            LinkError: TensorRT cannot load it, or cannot be used here.
        """
        self.path, self.name = path, name
        try:
            self._engine = _session(path)
        except InputError as error:
            raise LinkError(str(error)) from error

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """Runs once; see `Link.run`. `given` is not obeyed."""
        shaken = Nudge(on=nudge).inputs(inputs)
        leaves = array_arguments(shaken)
        names = [each.name for each in self._engine.input_infos]
        if len(names) != len(leaves):
            raise LinkError(
                f"{self.path}: takes {len(names)} tensors ({', '.join(names)}); the data have {len(leaves)}"
            )
        try:
            return Recording(outputs=self._engine.run(dict(zip(names, leaves, strict=True))))
        except InputError as error:
            raise LinkError(str(error)) from error


def _session(artifact: Path | bytes) -> Any:
    from bitwright.hw_constraints.backends import get_backend

    return get_backend("tensorrt").load(artifact, threads=1)
