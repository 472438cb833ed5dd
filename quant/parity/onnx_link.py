"""A runtime that runs an ONNX file, as a link: what all of them share.

A runtime says how it loads a model and how it runs what it has loaded; which tensors become results, where the file is
cut open and what flows in there is the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import onnx

from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.onnx_network import OnnxNetwork
from bitwright.quant.parity.results import Inputs


class OnnxLink(ABC):
    """An ONNX file in a runtime; the session of the last cut is kept."""

    takes_tensors = True
    replaced: Mapping[str, str] = {}

    def __init__(self, path: Path, name: str) -> None:
        self.network, self.name = OnnxNetwork(path), name
        self._sessions: dict[tuple[frozenset[str], frozenset[str]], tuple[Any, onnx.ModelProto]] = {}

    @property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """Every value of the file."""
        return self.network.tensors

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
            model = self.network.cut(given, wanted) if given else self.network.with_outputs(wanted)
            try:
                self._sessions = {key: (self._open(model), model)}  # one at a time: each holds the weights
            except Exception as error:  # runtimes' exception types share no base class
                raise LinkError(f"{self.network.path}: {self.name} cannot load it: {_one_line(error)}") from error
        session, model = self._sessions[key]
        feeds = self.network.feeds(inputs, given, nudge=nudge)
        entering = {each.name for each in model.graph.input}
        names = [each.name for each in model.graph.output]
        try:
            results = self._infer(session, names, {name: value for name, value in feeds.items() if name in entering})
        except Exception as error:
            raise LinkError(f"{self.network.path}: {self.name} cannot run it: {_one_line(error)}") from error
        return self.network.recording(results, wanted)

    @abstractmethod
    def _open(self, model: onnx.ModelProto) -> Any:
        """Loads a model."""

    @abstractmethod
    def _infer(self, session: Any, names: list[str], feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """The outputs of these names, by name."""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
