"""What `bitwright parity --bisect` looks for: a pass, an opset, a version of a runtime, a part of the data, a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum

from bitwright.experiments.parity_sides import Step
from bitwright.quant.errors import InputError
from bitwright.quant.parity.chain import ChainParity
from bitwright.quant.parity.results import Inputs


class Over(StrEnum):
    """What is halved."""

    LAYERS = "layers"  # of every pair, in place of looking at all of them
    PASSES = "passes"  # Bitwright's own, and of ONNX Runtime's optimiser
    OPSETS = "opsets"  # newer than the file's
    VERSIONS = "versions"  # of ONNX Runtime, here and in other Pythons
    DATA = "data"  # the part of the input
    FRAMES = "frames"  # of a network with memory: the inputs one behind the other


def search(over: Over, chain: ChainParity, steps: Sequence[Step], inputs: Sequence[Inputs]) -> tuple[str, ...]:
    """What was found, in lines of text.

    Raises:
        InputError: there is no file to look at.
    """
    by_name = {step.link.name: step for step in steps}
    return _SEARCHES[over](chain, by_name, inputs) if over in _SEARCHES else ()


def _passes(chain: ChainParity, by_name: Mapping[str, Step], inputs: Sequence[Inputs]) -> tuple[str, ...]:
    """Bitwright's own first, which everything behind them is made from."""
    return (*_own_passes(chain, by_name, inputs), *_runtime_passes(chain, by_name, inputs))


def _own_passes(chain: ChainParity, by_name: Mapping[str, Step], inputs: Sequence[Inputs]) -> Iterator[str]:
    from bitwright.quant.parity.halving import broken_links

    broken = {each.second for each in chain.pairs if not each.agrees}
    for name, step in by_name.items():
        # What begins a chain of its own is compared with nothing, so its passes are looked at in any case.
        if step.passes is not None and (name in broken or step.made_from == name):
            found = broken_links(step.passes(), inputs)
            tried = f"{found.steps} passes of Bitwright's lead to {name}; {found.comparisons} comparisons"
            if not found.culprits:
                yield f"passes: none changes the results ({tried})"
            for each in found.culprits:
                off = each.parity.problem or "; ".join(
                    f"{result}: {judged.error}" for result, judged in each.parity.results.items() if not judged.agrees
                )
                yield f"passes: {each.name} changes {off} ({tried})"


def _runtime_passes(chain: ChainParity, by_name: Mapping[str, Step], inputs: Sequence[Inputs]) -> tuple[str, ...]:
    from bitwright.hw_constraints.parity_passes import bisect_passes

    broken = next((each for each in chain.pairs if not each.agrees and by_name[each.second].file), None)
    if broken is None:
        return ("passes: no file breaks, so no pass of the runtime does",)
    file = by_name[broken.second].file
    assert file is not None
    found = bisect_passes(by_name[broken.first].link, file, inputs)
    tried = f"{found.steps} passes change {file.name}; {found.comparisons} comparisons"
    if not found.culprits:
        return (f"passes: none; {file.name} breaks without any of them, too, or with all of them no more ({tried})",)
    lines = [f"passes: {tried}"]
    for each in found.culprits:
        layers = ", ".join(layer.tensor.name for layer in each.parity.breaks[:3])
        lines.append(f"  {each.name} changes {layers or each.parity.problem}: disabled_optimizers=[{each.name!r}]")
    return tuple(lines)


def _opsets(chain: ChainParity, by_name: Mapping[str, Step], inputs: Sequence[Inputs]) -> tuple[str, ...]:
    import onnx

    from bitwright.hw_constraints.parity_passes import bisect_opsets

    file = next((each.file for each in by_name.values() if each.file is not None), None)
    if file is None:
        raise InputError("--bisect opsets: neither side is a file; give an .onnx file or a run's folder")
    found = bisect_opsets(file, inputs, newest=onnx.defs.onnx_opset_version())
    if not found.culprits:
        return (f"opsets: {file.name} computes the same in every newer opset ({found.steps} of them)",)
    (first,) = found.culprits
    what = first.parity.problem or ", ".join(each.tensor.name for each in first.parity.breaks[:3]) or "its results"
    return (f"opsets: {file.name} is another network from {first.name} on: {what}",)


def _versions(chain: ChainParity, by_name: Mapping[str, Step], inputs: Sequence[Inputs]) -> tuple[str, ...]:
    from bitwright.hw_constraints.parity_versions import bisect_versions

    named = {step.version: name for name, step in by_name.items() if step.version}
    if len(named) < 2:
        raise InputError(
            "--bisect versions: there is one version of ONNX Runtime only; name other Pythons with --runtime"
        )
    file = next(step.file for step in by_name.values() if step.version)
    origin = next(pair.first for pair in chain.pairs if pair.second in named.values() or by_name[pair.second].file)
    found = bisect_versions(by_name[origin].link, {key: by_name[name].link for key, name in named.items()}, inputs)
    which, tried = file.name if file else "", f"{', '.join(found.versions)}; {found.comparisons} comparisons"
    if found.parity is None:
        return (f"versions: {which} computes the same in all that were asked ({tried})",)
    what = found.parity.problem or ", ".join(each.tensor.name for each in found.parity.breaks[:3]) or "its results"
    beside = f"breaks, {found.agrees} does not" if found.agrees else "breaks, and so do the others"
    return (f"versions: {which} in ONNX Runtime {found.breaks} {beside}: {what} ({tried})",)


def _frames(chain: ChainParity, by_name: Mapping[str, Step], inputs: Sequence[Inputs]) -> tuple[str, ...]:
    from bitwright.quant.parity.frame_by_frame import first_broken_frame, remembers

    said, remembering = [], False
    for pair in chain.pairs:
        first, second = by_name[pair.first].link, by_name[pair.second].link
        if pair.problem or not remembers(first, inputs[0]):
            continue
        remembering = True
        found = first_broken_frame(first, second, inputs)
        if found is not None:
            said.append(f"frames: {pair.first} → {pair.second}: {found}")
            break  # what is made from it has the fault as well
        said.append(f"frames: {pair.first} → {pair.second}: agree on all {len(inputs)}, what they remember included")
    if not remembering:
        return ("frames: nothing is remembered from one to the next, as far as the captured network tells",)
    return tuple(said)


def _data(chain: ChainParity, by_name: Mapping[str, Step], inputs: Sequence[Inputs]) -> tuple[str, ...]:
    from bitwright.quant.parity.regions import bisect_region

    broken = next((each for each in chain.pairs if each.breaks), None)
    if broken is None:
        return ("data: no layer breaks on any input",)
    layer = broken.breaks[0]
    links = by_name[broken.first].link, by_name[broken.second].link
    region = bisect_region(*links, inputs, layer.tensor.name, layer.sample)
    if region is None:
        return (f"data: {layer.tensor.name} breaks worst on input {layer.sample}, which is no picture to halve",)
    return (f"data: {layer.tensor.name} breaks on {region} ({region.runs} comparisons)",)


_SEARCHES: Mapping[Over, Callable[[ChainParity, Mapping[str, Step], Sequence[Inputs]], tuple[str, ...]]] = {
    Over.PASSES: _passes,
    Over.OPSETS: _opsets,
    Over.VERSIONS: _versions,
    Over.DATA: _data,
    Over.FRAMES: _frames,
}
