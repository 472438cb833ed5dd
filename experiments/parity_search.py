"""What `bitwright parity --bisect` looks for behind the first break: a pass, an opset, a part of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from bitwright.experiments.parity_sides import Step
from bitwright.quant.errors import InputError
from bitwright.quant.parity.chain import ChainParity
from bitwright.quant.parity.results import Inputs


class Over(StrEnum):
    """What is halved."""

    LAYERS = "layers"  # of every pair, in place of looking at all of them
    PASSES = "passes"  # of ONNX Runtime's optimiser
    OPSETS = "opsets"  # newer than the file's
    DATA = "data"  # the part of the input


def search(over: Over, chain: ChainParity, steps: Sequence[Step], inputs: Sequence[Inputs]) -> tuple[str, ...]:
    """What was found, in lines of text.

    Raises:
        InputError: there is no file to look at.
    """
    by_name = {step.link.name: step for step in steps}
    return _SEARCHES[over](chain, by_name, inputs) if over in _SEARCHES else ()


def _passes(chain: ChainParity, by_name: Mapping[str, Step], inputs: Sequence[Inputs]) -> tuple[str, ...]:
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
    Over.DATA: _data,
}
