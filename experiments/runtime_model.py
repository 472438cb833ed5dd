"""An artefact in a runtime, called like the network that it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.utils._pytree as pytree

from bitwright.hw_constraints.backends.base import Session, get_backend
from bitwright.quant.errors import InputError

Array = npt.NDArray[Any]


class RuntimeModel:
    """Takes `forward`'s arguments, returns what `forward` returns.

    A batch of another size than the artefact's is run in pieces, the last one filled up; buffers that `forward`
    mutates are carried from call to call, as in the network itself.

    Attributes:
        engine: the runtime and its version.
    """

    def __init__(self, artifact: Path, runtime: str, example_output: Any, *, threads: int = 1) -> None:
        """Loads an artefact.

        Args:
            artifact: an ONNX file with its `.provenance.json` beside it.
            runtime: a backend's name.
            example_output: what `forward` returns; tells the structure of outputs.
            threads: of the runtime.
        """
        backend = get_backend(runtime)
        self.engine = f"{runtime} {backend.version()}"
        self._session: Session = backend.load(artifact, threads=threads)
        provenance = read_provenance(artifact)
        self._state_names: list[tuple[str, str]] = [(each["input"], each["output"]) for each in provenance["state"]]
        self._output_names: list[str] = provenance["outputs"]
        self._state: dict[str, Array] = {}
        incoming = {name for name, _ in self._state_names}
        self._inputs = [each for each in self._session.input_infos if each.name not in incoming]
        leaves, self._spec = pytree.tree_flatten(example_output)
        if len(leaves) != len(self._output_names) or not all(isinstance(each, torch.Tensor) for each in leaves):
            raise InputError(
                f"{artifact}: has {len(self._output_names)} outputs, the model returns {len(leaves)} values"
            )

    def __call__(self, *args: Any) -> Any:
        """Runs on a batch of any size."""
        arrays = [leaf.detach().cpu().numpy() for leaf in pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor)]
        if len(arrays) != len(self._inputs):
            raise InputError(f"the artefact takes {len(self._inputs)} tensors; the call has {len(arrays)}")
        pieces = [self._run(piece) for piece in self._pieces(arrays)]
        rows = arrays[0].shape[0] if len(pieces) > 1 or self._is_padded(arrays) else None
        leaves = [
            torch.from_numpy(np.concatenate(parts)[:rows] if rows else parts[0]) for parts in zip(*pieces, strict=True)
        ]
        return pytree.tree_unflatten(leaves, self._spec)

    def _run(self, arrays: Sequence[Array]) -> list[Array]:
        feed = {info.name: array for info, array in zip(self._inputs, arrays, strict=True)}
        results = self._session.run({**feed, **self._state})
        self._state = {incoming: results[outgoing] for incoming, outgoing in self._state_names}
        return [results[name] for name in self._output_names]

    def _pieces(self, arrays: Sequence[Array]) -> Iterator[list[Array]]:
        sizes = self._batch_sizes(arrays)
        if sizes is None:
            yield list(arrays)
            return
        have, size = sizes
        for start in range(0, have, size):
            rows = np.arange(start, start + size) % have
            yield [array[rows] for array in arrays]

    def _is_padded(self, arrays: Sequence[Array]) -> bool:
        return self._batch_sizes(arrays) is not None

    def _batch_sizes(self, arrays: Sequence[Array]) -> tuple[int, int] | None:
        """The call's and the artefact's batch size, when that is how they differ."""
        sizes = {
            (array.shape[0], info.shape[0])
            for array, info in zip(arrays, self._inputs, strict=True)
            if info.shape and array.ndim == len(info.shape)
        }
        if len(sizes) != 1:
            return None
        have, size = sizes.pop()
        return (have, size) if size is not None and have != size else None


def read_provenance(artifact: Path) -> dict[str, Any]:
    """What the exporter wrote beside an artefact: values, source lines, state, outputs."""
    provenance: dict[str, Any] = json.loads(artifact.with_suffix(".provenance.json").read_text(encoding="utf-8"))
    return provenance


def named_inputs(artifact: Path, example: tuple[Any, ...]) -> dict[str, Array]:
    """`forward`'s arguments under the names of the artefact's inputs; the state stays at its initial value."""
    import onnx

    state = {each["input"] for each in read_provenance(artifact)["state"]}
    inputs = onnx.load(str(artifact), load_external_data=False).graph.input
    names = [each.name for each in inputs if each.name not in state]
    arrays = [leaf.detach().cpu().numpy() for leaf in pytree.tree_leaves(example) if isinstance(leaf, torch.Tensor)]
    return dict(zip(names, arrays, strict=True))
