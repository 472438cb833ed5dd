"""What there is to decide about a network: for each decision, what each of its choices cuts out."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bitwright.nas.declared_space import Need
from bitwright.nas.elastic.blocks import Run, where_absent
from bitwright.nas.elastic.cut import Cut
from bitwright.nas.space import Parameter, Value
from bitwright.quant.channel_graph import ChannelGraph, ChannelGroup
from bitwright.quant.errors import InputError

_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class Shrinkage:
    """What is asked to shrink; what is left empty stays.

    Attributes:
        width: shares of the channels of each group that may stay, such as `(0.5, 0.75)`; all of them always may.
        depth: how many blocks of a run may stay; all always may.
        kernel: sides that kernels may shrink to, odd; their own always may.
        multiple: channels stay in multiples of it, as kernels like them; a head of so many channels is one already.
        stages: into how many stretches groups of channels, and likewise convolutions, are divided that are decided
            together; None decides each on its own.
        keep: globs over groups and paths of modules that stay as they are.
        inexact: also channels whose absence changes others, as those do that a layer norm takes statistics over;
            right for networks that are trained with it.
        importance: which channels are kept: `norm` or `gamma` (`qat.sparsity.importance`).
    """

    width: tuple[float, ...] = ()
    depth: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    multiple: int = 8
    stages: int | None = None
    keep: tuple[str, ...] = ()
    inexact: bool = True
    importance: str = "norm"

    def __post_init__(self) -> None:
        if not (self.width or self.depth or self.kernel):
            raise InputError("search space: nothing may shrink; give choices for width, depth or kernel")
        for name, choices, allowed, right in (
            ("width", self.width, "0 < share <= 1", all(0 < each <= 1 for each in self.width)),
            ("depth", self.depth, "0 blocks or more", all(each >= 0 for each in self.depth)),
            ("kernel", self.kernel, "odd sides", all(each > 0 and each % 2 for each in self.kernel)),
            ("multiple", self.multiple, "1 or more", self.multiple > 0),
            ("stages", self.stages, "1 or more", self.stages is None or self.stages > 0),
        ):
            if not right:
                raise InputError(f"search space: {name} = {choices}; give {allowed}")

    def keeps(self, name: str) -> bool:
        """Whether a group or module is to stay as it is."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.keep)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """One parameter of a search, and what each of its choices takes out.

    Attributes:
        parameter: the greatest choice takes nothing out.
        cuts: by choice.
        modules: paths of modules that it is about.
    """

    parameter: Parameter
    cuts: Mapping[Value, Cut]
    modules: frozenset[str]

    @property
    def least(self) -> Cut:
        """Where it shrinks most."""
        return self.cuts[self.parameter.choices[0]]


def widths(channels: ChannelGraph, groups: Sequence[ChannelGroup], asked: Shrinkage) -> list[Decision]:
    """A decision for each group of channels, or for each stretch of groups; those that cannot shrink have none."""
    made = []
    for name, together in _stretches("width", [(group.name, group) for group in groups], asked.stages):
        cuts: dict[Value, Cut] = {}
        seen = set()
        for share in sorted({*asked.width, 1.0}, reverse=True):
            counts = tuple(_kept(channels, group, share, asked.multiple) for group in together)
            if counts not in seen:
                removed = [group.units[kept:] for group, kept in zip(together, counts, strict=True)]
                cuts[share] = Cut(units=frozenset().union(*removed))
                seen.add(counts)
        owners = {ref.module_path.rpartition(".")[0] for group in together for ref, _ in group.axes}
        made.append(_decision(name, cuts, owners))
    return [each for each in made if len(each.cuts) > 1]


def _kept(channels: ChannelGraph, group: ChannelGroup, share: float, multiple: int) -> int:
    """Units that stay: the nearest multiple to the share, at least one."""
    total = len(group.units)
    step = max(1, multiple // min(_places(channels, group)))
    if step >= total:
        step = 1
    return min(total, max(step, round(share * total / step) * step))


def _places(channels: ChannelGraph, group: ChannelGroup) -> list[int]:
    """How many places a unit has on each axis: 1 for a channel of a convolution, its size for a head."""
    counts = []
    for ref, axis in group.axes:
        units = channels.units_along(ref, axis)
        assert units is not None  # a group has only such axes
        counts.append(int((units == group.units[0]).sum()))
    return counts


def depths(runs: Sequence[Run], asked: Shrinkage) -> tuple[list[Decision], dict[str, str]]:
    """A decision for each run of blocks, and why others have none."""
    made, refused = [], {}
    for run in runs:
        least = run.leader
        fitting = sorted({run.depth, *(each for each in asked.depth if least <= each < run.depth)}, reverse=True)
        if len(fitting) == 1:
            refused[run.name] = f"has {run.depth} blocks, of which at least {least} stay; depth = {list(asked.depth)}"
            continue
        cuts: dict[Value, Cut] = {
            depth: Cut(absent=frozenset(block.path for block in run.absent(depth))) for depth in fitting
        }
        made.append(_decision(f"depth.{run.name}", cuts, {block.path for block in run.absent(fitting[-1])}))
    return made, refused


def kernels(model: nn.Module, asked: Shrinkage) -> tuple[list[Decision], dict[str, str]]:
    """A decision for each convolution, or each stretch of them, and why others that could be smaller have none."""
    found: list[tuple[str, _ConvNd]] = []
    refused = {}
    for path, module in model.named_modules():
        if not isinstance(module, _ConvNd) or isinstance(module, _ConvTransposeNd) or max(module.kernel_size) == 1:
            continue
        reason = _not_same(module)
        if reason:
            refused[path] = reason
        elif not asked.keeps(path):
            found.append((path, module))
    made = []
    for name, together in _stretches("kernel", [(path, (path, conv)) for path, conv in found], asked.stages):
        largest = max(max(conv.kernel_size) for _, conv in together)
        cuts: dict[Value, Cut] = {}
        for side in sorted({largest, *(each for each in asked.kernel if each < largest)}, reverse=True):
            smaller = {path: tuple(min(side, own) for own in conv.kernel_size) for path, conv in together}
            changed = {path: size for path, size in smaller.items() if size != dict(together)[path].kernel_size}
            cuts[side] = Cut(kernels=changed)
        made.append(_decision(name, cuts, {path for path, _ in together}))
    return [each for each in made if len(each.cuts) > 1], refused


def _not_same(conv: _ConvNd) -> str:
    """Why a smaller kernel would change the size of the result; "" when it would not."""
    if any(side % 2 == 0 for side in conv.kernel_size):
        return f"kernel {list(conv.kernel_size)} has no centre"
    if conv.padding_mode != "zeros":
        return f"pads with {conv.padding_mode}, which a smaller kernel would read otherwise"
    same = tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    if conv.padding not in ("same", same):
        return f"pads by {conv.padding}; the size only stays with {same}"
    return ""


def _decision(name: str, cuts: Mapping[Value, Cut], modules: set[str]) -> Decision:
    choices = tuple(sorted(cuts, key=float))
    return Decision(
        parameter=Parameter(name=name, choices=choices, ordered=True), cuts=cuts, modules=frozenset(modules)
    )


def _stretches(what: str, items: Sequence[tuple[str, _Item]], stages: int | None) -> list[tuple[str, list[_Item]]]:
    """Each item by its name, or stretches of them by number."""
    if stages is None or stages >= len(items):
        return [(f"{what}.{name}", [item]) for name, item in items]
    bundles: dict[int, list[_Item]] = {}
    for index, (_, item) in enumerate(items):
        bundles.setdefault(index * stages // len(items), []).append(item)
    return [(f"{what}.{number}", together) for number, together in bundles.items()]


def needs(decisions: Sequence[Decision], runs: Sequence[Run]) -> dict[str, Need]:
    """Which decisions only mean something at some depth: those about nothing but blocks that may be absent."""
    there = where_absent(runs)
    depth_names = {each.parameter.name for each in decisions}
    found = {}
    for decision in decisions:
        # Innermost first: an inner run needs the outer one by a need of its own.
        for run in sorted(runs, key=lambda each: -len(each.blocks[0].path)):
            name = f"depth.{run.name}"
            if name not in depth_names or name == decision.parameter.name:
                continue
            inside = [_least(path, run, there) for path in decision.modules]
            if all(each is not None for each in inside):
                least = min(each for each in inside if each is not None)
                found[decision.parameter.name] = Need(parameter=name, least=least)
                break
    return found


def _least(path: str, run: Run, there: Mapping[str, tuple[Run, int]]) -> int | None:
    """The least depth at which a module of a run's removable blocks is there; None for modules elsewhere."""
    for block in run.blocks:
        if f"{path}.".startswith(f"{block.path}."):
            return there[block.path][1]
    return None
