"""A `.tflite` file in LiteRT as a link: results, and of the built-in kernels every tensor.

XNNPACK takes over what it can, and what lies inside is not kept, so with it there are results alone. Tensors of files
that Bitwright wrote are known by their references and come with channels second, as PyTorch has them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from bitwright.hw_constraints.backends.base import one_line
from bitwright.hw_constraints.backends.native_messages import native_messages
from bitwright.quant.errors import MissingExtraError, unknown
from bitwright.quant.export.exporter import provenance_of
from bitwright.quant.formats import FORMATS, IntFormat
from bitwright.quant.integer.codes import Grid, quantized
from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.nudge import Nudge
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import to_array

KERNELS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


class LiteRTLink:
    """A `.tflite` file in LiteRT's interpreter, one thread."""

    takes_tensors = False
    replaced: Mapping[str, str] = {}

    def __init__(self, path: Path, kernels: str = "builtin", name: str = "") -> None:
        """Loads a file.

        Args:
            path: the file; what Bitwright wrote beside it is read as well.
            kernels: one of `KERNELS`.
            name: of the link.

        Raises:
            InputError: there are no such kernels, or LiteRT is not installed.
            LinkError: LiteRT cannot load it.
        """
        if kernels not in KERNELS:
            raise unknown("set of LiteRT kernels", kernels, KERNELS)
        self.path, self.kernels = path, kernels
        self.name = name or f"litert, kernels: {kernels}"
        beside = provenance_of(path)
        self._provenance = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        self._interpreter = self._load()
        self._details = {each["index"]: each for each in self._interpreter.get_tensor_details()}

    def _load(self) -> Any:
        try:
            from ai_edge_litert import interpreter
        except ImportError as error:
            raise MissingExtraError("a LiteRT link", "litert") from error
        resolver = getattr(interpreter.OpResolverType, KERNELS[self.kernels])
        try:
            with native_messages():
                loaded = interpreter.Interpreter(
                    model_path=str(self.path),
                    num_threads=1,
                    experimental_op_resolver_type=resolver,
                    experimental_preserve_all_tensors=self.kernels != "xnnpack",
                )
                loaded.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise LinkError(f"{self.path}: {self.name} cannot load it: {one_line(error)}") from error
        return loaded

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """What the file's operators make, in their order; of a file that Bitwright wrote, what has a reference."""
        if self.kernels == "xnnpack":
            return {}
        makers = {output: step for step in self._steps for output in step["outputs"]}
        found = {}
        for step in self._steps:
            for output in step["outputs"]:
                name = self._details[output]["name"]
                if self._is_known(name):
                    facts = self._provenance.get("operators", {}).get(name, {})
                    found[name] = LinkTensor(
                        name=name,
                        op=facts.get("op", step["op_name"]),
                        reads=self._reads(output, makers),
                        shape=tuple(self._plain(name, np.empty(self._details[output]["shape"], np.bool_)).shape),
                        grid=self._grid(output),
                        source=str(self._provenance.get("sources", {}).get(name, "")),
                    )
        return found

    @cached_property
    def _steps(self) -> list[dict[str, Any]]:
        # The interpreter has no public list of its operators.
        return [each for each in self._interpreter._get_ops_details() if each["op_name"] != "DELEGATE"]

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
        leaves = pytree.tree_leaves((shaken.args, dict(shaken.kwargs)))
        places = self._interpreter.get_input_details()
        if len(places) != len(leaves):
            names = ", ".join(each["name"] for each in places)
            raise LinkError(f"{self.path}: takes {len(places)} tensors ({names}); the data have {len(leaves)}")
        try:
            for place, leaf in zip(places, leaves, strict=True):
                self._interpreter.set_tensor(place["index"], self._stored(place, leaf))
            self._interpreter.invoke()
            indices = {self._details[i]["name"]: i for step in self._steps for i in step["outputs"]}
            outputs = [each["index"] for each in self._interpreter.get_output_details()]
            return Recording(
                outputs={self._details[index]["name"]: self._value(index) for index in outputs},
                tensors={name: self._value(indices[name]) for name in wanted},
            )
        except (ValueError, RuntimeError) as error:
            raise LinkError(f"{self.path}: {self.name} cannot run it: {one_line(error)}") from error

    def _is_known(self, name: str) -> bool:
        return name in self._provenance.get("values", {name: ""})

    def _reads(self, index: int, makers: Mapping[int, dict[str, Any]]) -> tuple[str, ...]:
        """The known tensors that one is made from, through those that only the file has."""
        found: dict[str, None] = {}
        waiting = list(makers[index]["inputs"])
        while waiting:
            read = int(waiting.pop(0))
            name = self._details[read]["name"] if read in self._details else ""
            if name and self._is_known(name) and (read in makers or name in self._entering):
                found[name] = None
            elif read in makers:
                waiting += list(makers[read]["inputs"])
        return tuple(found)

    @cached_property
    def _entering(self) -> frozenset[str]:
        return frozenset(each["name"] for each in self._interpreter.get_input_details())

    def _grid(self, index: int) -> Grid | None:
        """The codes of a tensor with one scale."""
        details = self._details[index]
        parameters, fmt = details["quantization_parameters"], FORMATS.get(np.dtype(details["dtype"]).name)
        if len(parameters["scales"]) != 1 or not isinstance(fmt, IntFormat) or fmt.bits > 16:
            return None
        return Grid(format=fmt, scale=parameters["scales"][0], zero_point=int(parameters["zero_points"][0]))

    def _value(self, index: int) -> Array:
        values, grid = self._interpreter.get_tensor(index), self._grid(index)
        return self._plain(self._details[index]["name"], values if grid is None else grid.real(values))

    def _stored(self, place: Mapping[str, Any], leaf: Any) -> Array:
        values = to_array(leaf) if isinstance(leaf, torch.Tensor) else np.asarray(leaf)
        if self._has_channels_last(place["name"], values):
            values = np.moveaxis(values, 1, -1)
        grid = self._grid(place["index"])
        coded = values if grid is None or values.dtype.kind != "f" else quantized(values, grid)
        return np.ascontiguousarray(coded.astype(place["dtype"]))

    def _plain(self, name: str, values: Array) -> Array:
        return np.moveaxis(values, -1, 1) if self._has_channels_last(name, values) else values

    def _has_channels_last(self, name: str, values: Array) -> bool:
        return values.ndim > 2 and self._provenance.get("layouts", {}).get(name) == "channels_last"
