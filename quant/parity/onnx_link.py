"""A runtime that runs an ONNX file, as a link: what all of them share.

A runtime says how it loads a model and how it runs what it has loaded; which tensors become results, where the file is
cut open and what flows in there is the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.onnx_network import OnnxNetwork
from bitwright.quant.parity.results import Inputs


class OnnxLink(ABC):
    """An ONNX file in a runtime; the session of the last cut is kept.

    Attributes:
        is_exact: whether it fuses nothing, so that what codes are rounded from can be asked for, too.
    """

    takes_tensors = True
    replaced: Mapping[str, str] = {}
    is_exact = False

    def __init__(self, path: Path, name: str) -> None:
        self.network, self.name = OnnxNetwork(path), name
        self._loaded: dict[tuple[frozenset[str], frozenset[str]], _Loaded] = {}

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
        if key not in self._loaded:
            cut = self.network.cut(given, wanted, unrounded=self.is_exact) if given else None
            model = cut or self.network.with_outputs(wanted, unrounded=self.is_exact)
            names = ([each.name for each in side] for side in (model.graph.input, model.graph.output))
            self._loaded = {key: _Loaded(self._load(model), *names)}  # one at a time: each holds the weights
        loaded = self._loaded[key]
        feeds = self.network.feeds(inputs, given, nudge=nudge)
        entering = {name: feeds[name] for name in loaded.inputs if name in feeds}
        try:
            results = self._infer(loaded.session, loaded.outputs, entering)
        except Exception as error:  # runtimes' exception types share no base class
            raise LinkError(f"{self.network.path}: {self.name} cannot run it: {_one_line(error)}") from error
        return self.network.recording(results, wanted)

    def _load(self, model: onnx.ModelProto, **options: Any) -> Any:
        try:
            return self._open(model, **options)
        except Exception as error:
            raise LinkError(f"{self.network.path}: {self.name} cannot load it: {_one_line(error)}") from error

    @abstractmethod
    def _open(self, model: onnx.ModelProto, **options: Any) -> Any:
        """Loads a model, with a runtime's own options."""

    @abstractmethod
    def _infer(self, session: Any, names: Sequence[str], feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """The outputs of these names, by name."""


@dataclass(frozen=True)
class _Loaded:
    session: Any
    inputs: Sequence[str]
    outputs: Sequence[str]


class ReferenceLink(OnnxLink):
    """An ONNX file in `onnx.reference`: every operator by its definition, in NumPy."""

    is_exact = True

    def __init__(self, path: Path, name: str = "onnx.reference") -> None:
        super().__init__(path, name)

    def _open(self, model: onnx.ModelProto, **options: Any) -> Any:
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(model)

    def _infer(self, session: Any, names: Sequence[str], feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with np.errstate(all="ignore"):
            return dict(zip(names, session.run(list(names), dict(feeds)), strict=True))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
