"""An ONNX file in OpenVINO's CPU plugin as a link, in float and in codes.

Codes that are asked for are what the file's QuantizeLinear writes, and codes that are given enter where its
DequantizeLinear reads them: OpenVINO takes both for its own low-precision layers, which stay fused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from bitwright.quant.parity.link import Array, LinkTensor
from bitwright.quant.parity.onnx_link import OnnxLink


class OpenVINOLink(OnnxLink):
    """An ONNX file in OpenVINO, one thread, real values in float32.

    Only codes, and real values that no layer of OpenVINO's has swallowed, are shown: asking for others would undo the
    fusions that are to be compared.
    """

    def __init__(self, path: Path, name: str = "openvino") -> None:
        super().__init__(path, name)

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """What OpenVINO's own graph of the whole file still has."""
        network = self.network
        makers = {node.name or value: node for node in network.model.graph.node for value in node.output}
        order = {value: place for place, node in enumerate(network.model.graph.node) for value in node.output}
        alive = set()
        for executed in self._load(network.model).executed_graph():
            values = [makers[name].output[0] for name in executed.originals if name in makers]
            values += [name for name in executed.originals if name in order]
            alive.update(sorted(values, key=order.__getitem__)[-1:])  # the last of those that are fused is stored
        shown = network.shown
        return {name: each for name, each in network.tensors.items() if each.grid or shown[name].value in alive}

    def _open(self, model: onnx.ModelProto, **options: Any) -> Any:
        from bitwright.hw_constraints.backends import get_backend

        return get_backend("openvino").load(model.SerializeToString(), threads=1)

    def _infer(self, session: Any, names: Sequence[str], feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        taken = {each.name for each in session.input_infos}
        found: Mapping[str, Array] = session.run({name: value for name, value in feeds.items() if name in taken})
        return {name: found[name] for name in names}
