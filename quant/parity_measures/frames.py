"""Models with memory, frame by frame: whether what they remember comes through.

One frame says nothing of it: a file that lost its state is right on the first and wrong from the second on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.utils._pytree as pytree

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.parity.joining import join_outputs
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import named_outputs, to_array
from bitwright.quant.parity_measures.measured import Array, Kind
from bitwright.quant.parity_measures.noise import Draws
from bitwright.quant.parity_measures.thresholds import Verdict, judge_outputs
from bitwright.quant.preserve import preserved
from bitwright.quant.quantized_model import QuantizedModel


class Stateful(Protocol):
    """A form of a network that remembers.

    Attributes:
        name: what reports call it.
    """

    name: str

    def reset(self) -> None:
        """Back to how it was before the first frame."""

    def step(self, inputs: Inputs) -> Mapping[str, Array]:
        """The next frame's results by name."""


class CapturedFrames:
    """A captured or a simulated network, its state beside it."""

    def __init__(self, network: CapturedModel | QuantizedModel, name: str = "captured") -> None:
        self.network, self.name = network, name
        self._captured = network.captured if isinstance(network, QuantizedModel) else network
        self._state = self._captured.initial_state()

    def reset(self) -> None:
        """See `Stateful`."""
        self._state = self._captured.initial_state()

    def step(self, inputs: Inputs) -> Mapping[str, Array]:
        """See `Stateful`."""
        return named_outputs(self.network.run(*inputs.args, state=self._state, **inputs.kwargs))


class ModuleFrames:
    """The user's own module in eval mode; buffers and attributes are what they were when it is closed or reset."""

    def __init__(self, module: torch.nn.Module, name: str = "eager") -> None:
        self.module, self.name = module, name
        self._before = contextlib.ExitStack()
        self.reset()

    def reset(self) -> None:
        """See `Stateful`."""
        self.close()
        self._before.enter_context(preserved(self.module))
        self.module.eval()

    def step(self, inputs: Inputs) -> Mapping[str, Array]:
        """See `Stateful`."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (inputs.args, dict(inputs.kwargs)))
        with torch.no_grad():
            return named_outputs(self.module(*args, **kwargs))

    def close(self) -> None:
        """Puts the module back."""
        self._before.close()


class FileFrames:
    """A file whose state comes in and goes out, in any runtime.

    Args:
        run: feeds by name to all results by name, those of the state among them.
        inputs: names of the user's tensors, in the order of their `forward`.
        state: pairs of an input and the output that goes there at the next frame (`provenance.json`, `state`).
        name: what reports call it.
    """

    def __init__(
        self,
        run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
        *,
        inputs: Sequence[str],
        state: Sequence[tuple[str, str]],
        name: str = "file",
    ) -> None:
        self.name = name
        self._run, self._inputs, self._wiring = run, tuple(inputs), tuple(state)
        self._state: dict[str, Array] = {}

    def reset(self) -> None:
        """The first frame takes the state from the file."""
        self._state = {}

    def step(self, inputs: Inputs) -> Mapping[str, Array]:
        """See `Stateful`.

        Raises:
            InputError: the file has no such output to carry over, or takes another number of tensors.
        """
        leaves = [
            leaf for leaf in pytree.tree_leaves((inputs.args, dict(inputs.kwargs))) if isinstance(leaf, torch.Tensor)
        ]
        if len(leaves) != len(self._inputs):
            raise InputError(f"{self.name}: got {len(leaves)} tensors; it takes {', '.join(self._inputs)}")
        feeds = dict(zip(self._inputs, map(to_array, leaves), strict=True))
        results = dict(self._run({**feeds, **self._state}))
        if missing := [after for _, after in self._wiring if after not in results]:
            raise InputError(f"{self.name}: has no output {missing[0]!r} to carry over; it gives {', '.join(results)}")
        self._state = {before: results[after] for before, after in self._wiring}
        carried = {after for _, after in self._wiring}
        return {name: value for name, value in results.items() if name not in carried}


@dataclass(frozen=True, kw_only=True)
class FrameDrift:
    """Two forms of a network over many frames.

    Attributes:
        first: the reference.
        second: the other.
        frames: the worst result of every frame, judged.
        first_break: the first frame (from 1) beyond what the formats explain; None where there is none.
        resets: whether both give the first frame's results again, bit for bit, after a reset.
        state_matters: the first frame on which the reference without memory differs; None: these frames do not tell.
        finding: what that amounts to, in words.
    """

    first: str
    second: str
    frames: tuple[Verdict, ...]
    first_break: int | None
    resets: tuple[bool, bool]
    state_matters: int | None
    finding: str

    @property
    def agrees(self) -> bool:
        """Whether the memory comes through, as far as these frames tell."""
        return self.first_break is None and all(self.resets) and self.state_matters is not None

    @property
    def curve(self) -> tuple[float, ...]:
        """The seen error of every frame, as its verdict has it."""
        return tuple(each.seen for each in self.frames)


def compare_frames(
    first: Stateful,
    second: Stateful,
    frames: Sequence[Inputs],
    draws: Sequence[Draws],
    *,
    kinds: Mapping[str, Kind] | None = None,
) -> FrameDrift:
    """Runs both over the frames, each with its own memory.

    Args:
        first: the reference.
        second: the other.
        frames: at least two.
        draws: of the reference with the formats' errors, one for each frame (`noise.frame_rounding_draws`).
        kinds: what the user says the results are.

    Raises:
        InputError: there are fewer than two frames, or not one draw for each.
    """
    if len(frames) < 2:
        raise InputError(f"frames = {len(frames)}; a memory shows from the second frame on, so at least 2 are needed")
    if len(draws) != len(frames):
        raise InputError(f"draws = {len(draws)} for {len(frames)} frames; one for each is needed")
    references, others = _over(first, frames), _over(second, frames)
    forgetful = [_over(first, [frame])[0] for frame in frames]
    verdicts = [_worst(a, b, each, kinds) for a, b, each in zip(references, others, draws, strict=True)]
    alone = [_worst(a, b, each, kinds) for a, b, each in zip(references, forgetful, draws, strict=True)]
    broken = _first_bad(verdicts)
    matters = _first_bad(alone)
    resets = (_same(_over(first, frames[:1])[0], references[0]), _same(_over(second, frames[:1])[0], others[0]))
    lost = (
        broken is not None
        and _first_bad([_worst(a, b, each, kinds) for a, b, each in zip(forgetful, others, draws, strict=True)]) is None
    )
    return FrameDrift(
        first=first.name,
        second=second.name,
        frames=tuple(verdicts),
        first_break=broken,
        resets=resets,
        state_matters=matters,
        finding=_finding(second.name, broken, matters, resets, lost=lost),
    )


def _over(network: Stateful, frames: Sequence[Inputs]) -> list[dict[str, Array]]:
    network.reset()
    return [dict(network.step(frame)) for frame in frames]


def _worst(
    reference: Mapping[str, Array], other: Mapping[str, Array], draws: Draws, kinds: Mapping[str, Kind] | None
) -> Verdict:
    names = join_outputs(*({key: value.shape for key, value in side.items()} for side in (reference, other)))
    if isinstance(names, str):
        return Verdict(name="results", agrees=False, reason=names, seen=np.inf, expected=0.0, allowed=0.0)
    joined = {name: other[there] for name, there in names.items()}
    return max(judge_outputs(reference, joined, draws, kinds=kinds), key=lambda each: each.severity)


def _first_bad(verdicts: Sequence[Verdict]) -> int | None:
    return next((number for number, each in enumerate(verdicts, 1) if not each.agrees), None)


def _same(one: Mapping[str, Array], two: Mapping[str, Array]) -> bool:
    def equal(a: Array, b: Any) -> bool:
        return b is not None and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))

    return all(equal(value, two.get(name)) for name, value in one.items())


def _finding(name: str, broken: int | None, matters: int | None, resets: tuple[bool, bool], *, lost: bool) -> str:
    said = []
    if matters is None:
        said.append("these frames do not show the memory: without it the results are the same")
    if broken == 1:
        said.append(f"{name} is wrong on the first frame already: not its memory")
    elif broken is not None and lost:
        said.append(f"{name} gives from frame {broken} on what the network gives without its memory: the state is lost")
    elif broken is not None:
        said.append(f"{name} leaves the network at frame {broken}: what it remembers is not what the network does")
    said += [
        f"{who} does not come back to its first frame by a reset"
        for who, ok in zip(("the reference", name), resets, strict=True)
        if not ok
    ]
    return "; ".join(said)
