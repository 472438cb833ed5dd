"""Runs a network on many samples side by side: all of them up to one node, then all of them up to the next.

What is alive between two nodes is kept for every sample: in memory up to a limit, the rest in a temporary folder, so
that a walk needs one forward of time and bounded memory, whatever the number of samples.
"""

from __future__ import annotations

import tempfile
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import torch.fx

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel, Transform, call
from bitwright.quant.fx_nodes import REF

Environment = MutableMapping[torch.fx.Node, Any]
Operands = Callable[[str], Mapping[str, torch.Tensor]]

# Of one walk; two walk side by side, and the samples themselves and one layer's statistics come on top.
KEPT_BYTES = 32 << 20


class LiveTensors:
    """What is alive in each sample; beyond `limit` bytes on disk."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._kept: dict[int, dict[torch.fx.Node, Any]] = {}
        self._bytes: dict[int, int] = {}
        self._spilled: dict[int, tuple[Path, list[tuple[torch.fx.Node, Any]]]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def put(self, sample: int, alive: Mapping[torch.fx.Node, Any]) -> None:
        """Keeps the tensors of a sample until they are taken."""
        size = sum(part.nbytes for value in alive.values() for part in _tensors(value))
        if sum(self._bytes.values()) + size <= self._limit:
            self._kept[sample], self._bytes[sample] = dict(alive), size
            return
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="bitwright-walk-")
        path = Path(self._folder.name) / f"{sample}.raw"
        with path.open("r+b" if path.exists() else "wb") as file:  # the pages that it has are written again
            self._spilled[sample] = path, [(node, _written(value, file)) for node, value in alive.items()]

    def take(self, sample: int) -> dict[torch.fx.Node, Any]:
        """The tensors of a sample, which is forgotten."""
        if sample in self._kept:
            self._bytes.pop(sample)
            return self._kept.pop(sample)
        path, spilled = self._spilled.pop(sample)
        with path.open("rb") as file:
            return {node: _read(left, file) for node, left in spilled}

    def fork(self) -> LiveTensors:
        """The same tensors, to be taken a second time; valid until this one's samples are put again."""
        other = LiveTensors(self._limit)
        other._kept = {sample: dict(alive) for sample, alive in self._kept.items()}
        other._bytes, other._spilled = dict(self._bytes), dict(self._spilled)
        return other


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


@dataclass(frozen=True)
class _OnDisk:
    """What is left in memory of a tensor whose values are in a file."""

    like: torch.Tensor  # on the device "meta"


def _written(value: Any, file: IO[bytes]) -> Any:
    if isinstance(value, torch.Tensor):
        # As it lies in memory: with channels last it costs no copy here, and convolutions none when it is back.
        dense = value if _is_dense(value) else value.contiguous()
        file.write(dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy().data)
        return _OnDisk(torch.empty_strided(dense.shape, dense.stride(), dtype=dense.dtype, device="meta"))
    return [_written(part, file) for part in value] if isinstance(value, list | tuple) else value


def _is_dense(value: torch.Tensor) -> bool:
    """Whether its elements fill one piece of memory, in whatever order of axes that convolutions know."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(value.dim(), torch.contiguous_format)
    return value.is_contiguous() or value.is_contiguous(memory_format=last)


def _read(left: Any, file: BufferedIOBase) -> Any:
    if isinstance(left, _OnDisk):
        values = np.empty(left.like.nbytes, np.uint8)
        file.readinto(values.data)
        return torch.from_numpy(values).view(left.like.dtype).as_strided(left.like.shape, left.like.stride())
    return [_read(part, file) for part in left] if isinstance(left, list) else left


class Walk:
    """A network under way.

    Args:
        captured: the network.
        samples: arguments of `forward` at the captured batch size.
        transform: what readers see of each tensor.
        operands: what a node reads in place of parameters, by the node's name; asked when the node runs.
        states: incoming state of each sample, where the network has state.
        forget: called with the name of a node that no sample will run any more.
        limit: bytes kept in memory.
    """

    def __init__(
        self,
        captured: CapturedModel,
        samples: Sequence[Arguments],
        *,
        transform: Transform | None = None,
        operands: Operands | None = None,
        states: Sequence[Mapping[str, torch.Tensor]] = (),
        forget: Callable[[str], object] = lambda name: None,
        limit: int = KEPT_BYTES,
    ) -> None:
        self.captured = without_parameters(captured)
        self.samples = samples
        self._positions = [0] * len(samples)
        self._forgotten = 0
        self._transform = transform or (lambda ref, tensor: tensor)
        self._operands: Operands = operands or (lambda name: {})
        self._states = states
        self._forget_operands = forget
        self._alive = LiveTensors(limit)
        self._parameters = {
            node: captured.values[node.name]
            for node in captured.fx_graph.nodes
            if node.op == "placeholder" and node.name in captured.values and node.name not in captured.state_names
        }

    def advance(self, stop: int, first: int | None = None) -> Iterator[Environment]:
        """Runs samples up to the node at `stop` and yields what each holds then.

        Results of the last node stay with those that are alive until the walk goes on. The walk has arrived when the
        iterator is exhausted.

        Args:
            stop: of the steps; never before that of an earlier call.
            first: only so many samples; the others stay where they are until a later call takes them along, which
                costs no more than if they had been on the way all the time.
        """
        for sample in range(len(self.samples))[:first]:
            position, self._positions[sample] = self._positions[sample], stop
            steps = self.captured.steps[position:stop]
            alive = self._alive.take(sample) if position else {}
            environment: Environment = ChainMap(alive, self._parameters)
            inputs = self._inputs(sample) if any(node.op == "placeholder" for node, _ in steps) else {}
            for node, dead in steps:
                if node.op != "placeholder":
                    call(node, environment, self._transform, self._operands(node.name))
                elif node.name in inputs:
                    environment[node] = self._transform(node.meta[REF][0], inputs[node.name])
                if node is not steps[-1][0]:
                    _drop(alive, dead)
            yield environment
            if steps:
                _drop(alive, steps[-1][1])
            self._alive.put(sample, alive)
        self._forget(min(self._positions))

    def _forget(self, place: int) -> None:
        """Gives up what no sample reads any more."""
        for node, dead in self.captured.steps[self._forgotten : place]:
            _drop(self._parameters, dead)
            self._forget_operands(node.name)
        self._forgotten = max(self._forgotten, place)

    def fork(self) -> Walk:
        """A walk at the same place, to go on with while this one waits; it ends before this one goes on."""
        other = Walk(
            self.captured, self.samples, transform=self._transform, operands=self._operands, states=self._states
        )
        other._positions, other._alive = list(self._positions), self._alive.fork()
        other._parameters, other._forgotten = dict(self._parameters), self._forgotten
        return other

    def _inputs(self, sample: int) -> dict[str, torch.Tensor]:
        names = [node.name for node in self.captured.input_nodes]
        given = dict(zip(names, self.captured.flatten(self.samples[sample], {}), strict=True))
        state = self._states[sample] if self._states else self.captured.initial_state()
        return {**given, **state}


def without_parameters(captured: CapturedModel) -> CapturedModel:
    """The network with its state alone; of parameters only the names are left."""
    nothing = torch.empty(0)
    kept = captured.state_names
    return replace(captured, values={name: v if name in kept else nothing for name, v in captured.values.items()})


def _drop(alive: MutableMapping[torch.fx.Node, Any], dead: Sequence[torch.fx.Node]) -> None:
    for node in dead:
        alive.pop(node, None)


def incoming_states(captured: CapturedModel, samples: Sequence[Arguments]) -> list[dict[str, torch.Tensor]]:
    """The state in which each sample finds the network, as the float network leaves it; empty where it has none."""
    if not captured.state_names:
        return []
    found, state = [], captured.initial_state()
    for arguments in samples:
        found.append({name: value.clone() for name, value in state.items()})
        captured.run(*arguments, state=state)
    return found
