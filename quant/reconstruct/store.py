"""What rounding keeps on disk: finished layers, behind which a killed run goes on, and samples beyond a limit."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
import torch.utils._pytree as pytree
from safetensors.torch import load_file, save_file

from bitwright.quant.calibrate import Arguments, numbered
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.quantized_model import QuantizedModel

KEPT_SAMPLE_BYTES = 32 << 20


class ChosenValues:
    """One `.safetensors` file a layer, until all are done.

    They lie in a folder named by what they follow from (`fingerprint`), so that nothing of another network, scheme or
    data set is ever taken up. A file appears in one step: a half-written one never counts.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, layer: str) -> dict[str, torch.Tensor] | None:
        """The parameters that were chosen for a layer; None when it is still to do."""
        path = self._path(layer)
        return dict(load_file(path)) if path is not None and path.exists() else None

    def put(self, layer: str, values: Mapping[str, torch.Tensor]) -> None:
        """Keeps them."""
        path = self._path(layer)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({name: value.contiguous() for name, value in values.items()}, partial)
        partial.replace(path)

    def clear(self) -> None:
        """Forgets them: all layers are done."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, layer: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{layer}.safetensors"


class KeptSamples(Sequence[Arguments]):
    """Arguments of `forward`, of which those beyond `limit` bytes lie on disk and are read when they are asked for."""

    def __init__(self, limit: int = KEPT_SAMPLE_BYTES) -> None:
        self._left = limit
        self._samples: list[Arguments | Path] = []
        self._specs: dict[Path, pytree.TreeSpec] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def append(self, arguments: Arguments) -> None:
        """Keeps one more."""
        self._left -= sum(leaf.nbytes for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))
        if self._left >= 0:
            self._samples.append(arguments)
            return
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="bitwright-samples-")
        path = Path(self._folder.name) / f"{len(self._samples)}.pt"
        leaves, spec = pytree.tree_flatten(arguments)
        own = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]  # of a batch only this part
        torch.save(own, path)
        self._specs[path] = spec
        self._samples.append(path)

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Arguments: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Arguments]: ...
    def __getitem__(self, index: int | slice) -> Arguments | Sequence[Arguments]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        found = self._samples[index]
        if not isinstance(found, Path):
            return found
        arguments: Arguments = pytree.tree_unflatten(torch.load(found, weights_only=True), self._specs[found])
        return arguments


class Pieces:
    """Calibration data in pieces of the captured batch size, read once; what is asked for ahead of its turn is kept.

    Attributes:
        kept: those that have been read ahead.
    """

    def __init__(self, captured: CapturedModel, batches: Iterable[Any]) -> None:
        self.kept = KeptSamples()
        self._numbers: list[int] = []
        self._left = numbered(captured, batches)

    def first(self, count: int) -> Sequence[Arguments]:
        """So many from the front, or all there are."""
        for number, piece in itertools.islice(self._left, max(0, count - len(self.kept))):
            self.kept.append(piece)
            self._numbers.append(number)
        return self.kept if len(self.kept) <= count else self.kept[:count]

    def __iter__(self) -> Iterator[tuple[int, Arguments]]:
        yield from zip(self._numbers, self.kept, strict=True)
        yield from self._left


def fingerprint(quantized: QuantizedModel, samples: Sequence[Arguments], method: str) -> str:
    """Names what the choice of weights follows from: the network, its qparams, the samples and the method."""
    digest = hashlib.blake2b(method.encode(), digest_size=8)
    for part in _tensors(quantized, samples):
        digest.update(part.detach().contiguous().numpy().tobytes())
    return f"{method}-{digest.hexdigest()}"


def _tensors(quantized: QuantizedModel, samples: Sequence[Arguments]) -> Iterator[torch.Tensor]:
    yield from quantized.captured.values.values()
    for qparams in quantized.qparams.values():
        yield from (qparams.scale, qparams.zero_point)
    for arguments in samples:
        yield from (leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))
