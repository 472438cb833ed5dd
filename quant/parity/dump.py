"""A dump of tensors as a link: what a device wrote while it ran, one file for each input or one for all.

`.npz` or `.safetensors`; arrays are named like the network's tensors (`/` and other signs may have become `_`). Names
that no tensor has are results when nothing else is there to say so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from bitwright.quant.errors import InputError
from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.results import Inputs

SUFFIXES = (".npz", ".safetensors")


class DumpLink:
    """Tensors that were saved elsewhere; it cannot run, so the n-th run gives the n-th file."""

    takes_tensors = False
    replaced: Mapping[str, str] = {}

    def __init__(self, paths: Sequence[Path], like: Mapping[str, LinkTensor], outputs: Collection[str]) -> None:
        """Opens a dump.

        Args:
            paths: a file for each input, in the order of the inputs.
            like: the tensors of the network that ran, whose names, grids and origins the dump's arrays take over.
            outputs: the names of the results among them.

        Raises:
            InputError: a file is no dump, or the files hold different tensors.
        """
        self.name = f"dump {paths[0].name}"
        self._paths = list(paths)
        self._like, self._outputs = like, outputs
        self._runs: dict[int, int] = {}
        self._names = _matched(read_dump(paths[0]), [*like, *outputs])

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """Those of the network that the dump holds."""
        return {name: each for name, each in self._like.items() if name in self._names}

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """The tensors that were saved for this input, which is known by its place among those seen."""
        place = self._runs.setdefault(id(inputs), len(self._runs))
        if place >= len(self._paths):
            raise LinkError(f"{self.name}: {len(self._paths)} files for {place + 1} inputs; give one for each input")
        arrays = read_dump(self._paths[place])
        if missing := sorted(set(self._names.values()) - set(arrays)):
            raise LinkError(f"{self._paths[place]}: lacks {missing[0]!r}, which {self._paths[0].name} has")
        found = {name: self._real(name, arrays[self._names[name]]) for name in wanted if name in self._names}
        results = {name: arrays[self._names[name]] for name in self._outputs if name in self._names}
        return Recording(outputs=results, tensors=found)

    def _real(self, name: str, array: Array) -> Array:
        """Codes as real values."""
        grid = self._like[name].grid
        return grid.real(array) if grid is not None and array.dtype.kind in "iu" else array


def read_dump(path: Path) -> dict[str, Array]:
    """The arrays of a dump by name; nothing in it is executed.

    Raises:
        InputError: it is none.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(path))
    except Exception as error:  # zip, NumPy and safetensors each have their own
        raise InputError(f"{path}: cannot be read as a dump of tensors: {' '.join(str(error).split())}") from error
    raise InputError(f"{path}: a dump of tensors ends in {' or '.join(SUFFIXES)}")


def _matched(arrays: Mapping[str, Array], names: Sequence[str]) -> dict[str, str]:
    """The array of each name: the name itself, or what file names leave of it, where that is not ambiguous."""
    plain: dict[str, list[str]] = {}
    for key in arrays:
        plain.setdefault(_plain(key), []).append(key)
    found = {}
    for name in dict.fromkeys(names):
        keys = [name] if name in arrays else plain.get(_plain(name), [])
        if len(keys) == 1:
            found[name] = keys[0]
    return found


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")
