"""What `bitwright parity` does: two sides as one chain of links, compared neighbour by neighbour."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bitwright.experiments.console import Console
from bitwright.experiments.output_file import writing
from bitwright.experiments.parity_data import inputs_for
from bitwright.experiments.parity_runtimes import Runtimes, with_other_pythons
from bitwright.experiments.parity_search import Over, search
from bitwright.experiments.parity_sides import Step, check_tensorrt, dump_step, is_dump, open_side
from bitwright.experiments.parity_weights import UnlikeWeights, unlike_weights
from bitwright.hw_constraints.parity_links import LEVELS
from bitwright.quant.errors import InputError
from bitwright.quant.parity.bisect import halve_links
from bitwright.quant.parity.chain import ChainParity, compare_chain
from bitwright.quant.parity.isolated import IsolatedLink
from bitwright.quant.parity.locate import compare_links
from bitwright.quant.parity.results import Inputs


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The command's options.

    Attributes:
        data: see `inputs_for`.
        shapes: of example inputs.
        samples: how many inputs.
        levels: ONNX Runtime's optimisation levels; empty for the lowest and the highest, or before a dump the lowest
            alone, which shows most tensors.
        reference: whether files run in `onnx.reference`, too.
        openvino: whether they run in OpenVINO, too.
        tensorrt: whether they run in TensorRT, too.
        runtimes: other Pythons whose ONNX Runtime or ExecuTorch runs files, too.
        out: where reproducers go.
        bisect: what to halve, beside or in place of looking at every layer.
    """

    data: str | None = None
    shapes: tuple[str, ...] = ()
    samples: int = 2
    levels: tuple[str, ...] = ()
    reference: bool = False
    openvino: bool = False
    tensorrt: bool = False
    runtimes: tuple[str, ...] = ()
    out: Path | None = None
    bisect: Over | None = None


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """What was found.

    Attributes:
        chain: every pair.
        advice: what to do where a link breaks, by its name.
        inputs: how many.
        reproducers: the scripts that were written, by link and tensor.
        weights: those that differ between two sides; where most do, nothing was compared across them.
        searched: what `--bisect` found, in lines.
    """

    chain: ChainParity
    advice: Mapping[str, str]
    inputs: int
    reproducers: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    weights: UnlikeWeights | None = None
    searched: tuple[str, ...] = ()

    @property
    def is_another_network(self) -> bool:
        """Whether the two sides were trained otherwise."""
        return self.weights is not None and self.weights.is_another_network

    @property
    def agrees(self) -> bool:
        """Whether every link is the network."""
        return self.chain.agrees and not self.is_another_network


def compare_sides(first: str, second: str | None, asked: Asked, *, console: Console) -> ParityReport:
    """Compares.

    Raises:
        InputError: a side cannot be opened, the data do not fit, or a reproducer cannot be written.
    """
    if is_dump(first):
        raise InputError(f"{first}: is a dump, which can only be the second of the two: {second or 'NETWORK'} {first}")
    if asked.tensorrt:
        check_tensorrt("--tensorrt")
    levels = asked.levels
    if not levels:
        levels = LEVELS[:1] if second is not None and is_dump(second) else (LEVELS[0], LEVELS[-1])
    here = Runtimes(levels=levels, reference=asked.reference, openvino=asked.openvino, tensorrt=asked.tensorrt)
    with contextlib.ExitStack() as open_processes:
        sides = [first] if second is None else [first, second]
        runtimes = with_other_pythons(here, asked.runtimes, sides, open_processes)
        return _compare_sides(first, second, asked, runtimes, console=console)


def _compare_sides(
    first: str, second: str | None, asked: Asked, runtimes: Runtimes, *, console: Console
) -> ParityReport:
    sides = [open_side(first, asked.shapes, runtimes)]
    steps, weights = list(sides[0].steps), None
    if second is not None and is_dump(second):
        steps.append(dump_step(second, sides[0]))
    elif second is not None:
        sides.append(open_side(second, asked.shapes, runtimes))
        weights = unlike_weights(*sides)
        if weights.is_another_network:
            return ParityReport(chain=ChainParity(pairs=()), advice={}, inputs=0, weights=weights)
        taken = {step.link.name for step in steps}
        steps += [_renamed(step, second) if step.link.name in taken else step for step in sides[1].steps]
    if len(steps) < 2:
        eager = steps[0].link.name == "eager"
        why = "does not capture whole (bitwright regions says why)" if eager else "is one form of a network"
        raise InputError(f"{first}: {why}; name a second one to compare it with")
    inputs = inputs_for(sides, asked.data, asked.samples)
    report = compare_steps(steps, inputs, asked.out, console=console, bisect=asked.bisect)
    return replace(report, weights=weights)


def compare_steps(
    steps: Sequence[Step],
    inputs: Sequence[Inputs],
    out: Path | None,
    *,
    console: Console,
    bisect: Over | None = None,
) -> ParityReport:
    """Compares each step with what it was made from, and ends the processes of those that have one.

    Args:
        steps: the chain.
        inputs: what to compare on.
        out: where reproducers go; None writes none.
        console: where progress goes.
        bisect: what to halve.

    Raises:
        InputError: the first step cannot run, or a reproducer cannot be written.
    """
    try:
        chain = compare_chain(
            [each.link for each in steps],
            inputs,
            made_from={each.link.name: each.made_from for each in steps if each.made_from},
            progress=lambda text: console.say(f"  {text}"),
            compare=halve_links if bisect is Over.LAYERS else compare_links,
        )
        searched = () if bisect is None else search(bisect, chain, steps, inputs)
        written = {} if out is None else _reproducers(out, chain, steps, inputs)
    finally:
        for step in steps:
            if isinstance(step.link, IsolatedLink):
                step.link.close()
    advice = {each.link.name: each.advice for each in steps}
    return ParityReport(chain=chain, advice=advice, inputs=len(inputs), reproducers=written, searched=searched)


def _renamed(step: Step, side: str) -> Step:
    """Two networks are both `eager`; names tell links apart."""
    step.link.name = f"{step.link.name} of {side}"
    return step


def _reproducers(
    folder: Path, chain: ChainParity, steps: Sequence[Step], inputs: Sequence[Inputs]
) -> dict[tuple[str, str], Path]:
    """One for each break of a file."""
    from bitwright.quant.parity.onnx_network import OnnxNetwork
    from bitwright.quant.parity.reproducer import write_reproducer

    by_name = {step.link.name: step for step in steps}
    written: dict[tuple[str, str], Path] = {}
    for pair in chain.pairs:
        step = by_name[pair.second]
        for layer in pair.breaks if step.file is not None else ():
            assert step.file is not None
            place = folder / f"{len(written) + 1:02d}"
            with writing("--out", place):
                written[pair.second, layer.tensor.name] = write_reproducer(
                    place, layer, by_name[pair.first].link, step.link, OnnxNetwork(step.file), inputs[layer.sample]
                )
    return written
