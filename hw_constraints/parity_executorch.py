"""A `.pte` program in ExecuTorch as a link: results, and what each of its calls writes.

It runs in a process of its own, of this Python or of another one: the torch that ExecuTorch was built for need not be
this one. Kernels show every tensor; a delegate (XNNPACK, …) shows what leaves it, and which tensor of the network that
is, only values tell (`LinkTensor.is_opaque`). Tensors have no names that last, so they are joined by structure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.hw_constraints.parity_elsewhere import Elsewhere
from bitwright.quant.formats import FORMATS, IntFormat
from bitwright.quant.integer.codes import Grid
from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.nudge import Nudge
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import array_arguments

_INPUT = "input_"
_QUANTIZES, _DEQUANTIZES = "quantize_per_tensor", "dequantize_per_tensor"


class ExecuTorchLink:
    """A program's method; each run begins with what the program remembers at its beginning."""

    takes_tensors = False
    replaced: Mapping[str, str] = {}

    def __init__(self, path: Path, elsewhere: Elsewhere, name: str = "") -> None:
        """Prepares a link; the file is loaded when it is first asked for something.

        Args:
            path: the file.
            elsewhere: a process with ExecuTorch.
            name: of the link.
        """
        self.path, self.name = path, name or f"executorch {elsewhere.version}"
        self._elsewhere, self._key = elsewhere, str(id(self))

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """The inputs and what calls write, in their order; nothing of a program that jumps, whose calls repeat."""
        return {each.name: each for each in self._shown.values()}

    @cached_property
    def _program(self) -> dict[str, Any]:
        try:
            return self._elsewhere.open(self._key, {"path": str(self.path.absolute())}, {})
        except RuntimeError as error:
            raise LinkError(f"{self.path}: {self.name} cannot load it: {error}") from error

    @cached_property
    def _shown(self) -> dict[int, LinkTensor]:
        """The tensor of each value; what is rounded to codes is shown by them, as in ONNX files."""
        shown: dict[int, LinkTensor] = {}
        for place, each in enumerate(self._program["inputs"] if self._program["calls"] else ()):
            if each["dtype"].startswith("float"):
                shown[each["value"]] = LinkTensor(name=f"{_INPUT}{place}", shape=tuple(each["shape"]))
        for call in self._program["calls"]:
            sources = [each for each in call["reads"] if each in shown]
            reads = [shown[each] for each in sources]
            if call["op"].startswith(_DEQUANTIZES) and reads:
                shown[call["writes"][0]] = reads[0]  # real values of codes are these codes
            elif call["op"].startswith(_QUANTIZES) and reads:
                shown[sources[0]] = shown[call["writes"][0]] = _rounded(call, reads[0])
            else:
                for output, value in enumerate(call["writes"]):
                    if 0 not in call["shapes"][output]:  # what a kernel keeps for training, and does not compute
                        shown[value] = _written(call, output, reads)
        return shown

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """Runs once; see `Link.run`. `given` is not obeyed.

        Raises:
            LinkError: also for inputs with a state: that of a program cannot be set.
        """
        if inputs.state:
            memory = ", ".join(inputs.state)
            raise LinkError(f"{self.path}: what a program remembers cannot be set ({memory}); give first frames only")
        arrays = self._arguments(Nudge(on=nudge).inputs(inputs))
        calls = sorted({int(_key(name).partition(":")[0]) for name in wanted if not name.startswith(_INPUT)})
        feeds = {str(place): each for place, each in enumerate(arrays)}
        try:
            found = self._elsewhere.run(self._key, {"calls": calls}, feeds)
        except RuntimeError as error:
            raise LinkError(f"{self.path}: {self.name} cannot run it: {error}") from error
        results = {key: value for key, value in found.items() if ":" not in key}
        names = {key: "output" if len(results) == 1 else f"output_{key}" for key in results}
        return Recording(
            outputs={names[key]: value for key, value in results.items()},
            tensors={name: self._value(name, arrays, found) for name in wanted},
        )

    def _arguments(self, inputs: Inputs) -> list[Array]:
        leaves = array_arguments(inputs)
        taken = self._program["inputs"]
        if len(taken) != len(leaves):
            raise LinkError(f"{self.path}: takes {len(taken)} tensors; the data have {len(leaves)}")
        for place, (each, leaf) in enumerate(zip(taken, leaves, strict=True)):
            if each["dtype"] != str(leaf.dtype) or len(each["shape"]) != leaf.ndim:
                raise LinkError(
                    f"{self.path}: input {place} is {each['dtype']} {each['shape']}; "
                    f"the data have {leaf.dtype} {list(leaf.shape)}"
                )
        return [np.ascontiguousarray(each) for each in leaves]

    def _value(self, name: str, arrays: list[Array], found: Mapping[str, Array]) -> Array:
        """As readers see it."""
        grid = self.tensors[name].grid
        if name.startswith(_INPUT):
            return arrays[int(name.removeprefix(_INPUT))]
        values = found[_key(name)]
        return values if grid is None else grid.real(values)


def _key(name: str) -> str:
    """The call and the output that a tensor is, from its name: `CALL:OUTPUT`."""
    return name.rpartition("#")[2]


def _written(call: Mapping[str, Any], output: int, reads: list[LinkTensor]) -> LinkTensor:
    return LinkTensor(
        name=f"{call['op']}#{call['place']}:{output}",
        op=call["op"],
        reads=tuple(dict.fromkeys(each.name for each in reads)),
        shape=tuple(call["shapes"][output]),
        is_opaque=call["is_delegate"],
    )


def _rounded(call: Mapping[str, Any], source: LinkTensor) -> LinkTensor:
    """Codes have the operator and the operands of what was rounded to them."""
    codes, fmt = call["codes"], FORMATS.get(call["dtypes"][0])
    if codes is None or not isinstance(fmt, IntFormat):
        return source
    bounds = codes["low"], codes["high"]
    grid = Grid(format=fmt, scale=np.float32(codes["scale"]), zero_point=codes["zero_point"], bounds=bounds)
    return replace(source, name=f"{call['op']}#{call['place']}:0", grid=grid)
