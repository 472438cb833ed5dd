"""What of a target is varied: `memory.sram=1..64MiB`, `dram.bandwidth=34,68GB/s`, `npu.clock=1..4GHz`, `array=32..256`.

A range doubles from its lower end to its upper one; a list is taken as it is. A unit that is written once holds for all
values. The target's own value is always among them: it is what the others are compared with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bitwright.hw_constraints.quantity import Quantity, parse_quantity
from bitwright.hw_constraints.target_data import Link
from bitwright.hw_constraints.target_hardware import Array, Engine, Memory
from bitwright.hw_constraints.target_source import Figure, Source
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.errors import InputError, suggestion

ARRAY = "array"
_SAME = 0.01  # a value so near to the target's own says nothing
_DOUBLINGS = 20  # of a range: each point lowers every network anew
_EXPLORED = Source(title="a value that is explored")
_NUMBER = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*(.*)", re.ASCII)
_SIDES = re.compile(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One value of what is varied.

    Attributes:
        text: as a reader wants it: `2 MiB`, `64x64`.
        value: in the base unit; of an array its units.
        target: the target with that value.
        is_own: whether the target's file says so.
    """

    text: str
    value: float
    target: Target
    is_own: bool


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is varied, from its smallest value to its largest."""

    name: str
    settings: tuple[Setting, ...]

    @property
    def own(self) -> Setting:
        """The target's own value."""
        return next(setting for setting in self.settings if setting.is_own)

    @classmethod
    def parse(cls, text: str, target: Target) -> Axis:
        """Reads `NAME=VALUES` for a target.

        Raises:
            InputError: the target has no such figure, or a value is not one; the message lists what there is.
        """
        name, equals, values = (part.strip() for part in text.partition("="))
        if not (name and equals and values):
            raise InputError(
                f"vary = {text!r}; expected NAME=LOW..HIGH or NAME=VALUE,VALUE such as memory.sram=1..64MiB"
            )
        settings = _arrays(values, target) if name == ARRAY else _figures(name, values, target)
        ordered = sorted(settings, key=lambda setting: setting.value)
        return cls(name=name, settings=tuple({setting.text: setting for setting in ordered}.values()))


def _figures(name: str, values: str, target: Target) -> list[Setting]:
    owner, figure = _owner_and_figure(name, target)
    own = owner.figures[figure].quantity
    found = [Setting(text=own.text, value=own.value, target=target, is_own=True)]
    for quantity in _quantities(name, values, own):
        if not math.isclose(quantity.value, own.value, rel_tol=_SAME):
            varied = _with_figure(target, owner, figure, quantity)
            found.append(Setting(text=quantity.text, value=quantity.value, target=varied, is_own=False))
    return found


def _owner_and_figure(name: str, target: Target) -> tuple[Engine | Memory | Link, str]:
    """`memory.sram` is its size; else `OWNER.FIGURE`."""
    first, _, second = name.partition(".")
    owners: dict[str, Engine | Memory | Link] = {**target.engines, **target.memories, **target.links}
    if first == "memory" and second in target.memories:
        first, second = second, "size"
    if first in owners and second in owners[first].figures:
        return owners[first], second
    choices = [f"{owner.name}.{figure}" for owner in owners.values() for figure in owner.figures]
    choices += [ARRAY] * any(engine.array for engine in target.engines.values())
    hint, listed = suggestion(name, choices), ", ".join(choices)
    raise InputError(f"vary {name!r}: target {target.id!r} has no such figure{hint}; it has: {listed}")


def _quantities(name: str, values: str, own: Quantity) -> list[Quantity]:
    parts = re.split(r"\.\.|,", values)
    unit = next((match[2] for part in reversed(parts) if (match := _NUMBER.fullmatch(part.strip())) and match[2]), "")
    read = []
    for part in parts:
        match = _NUMBER.fullmatch(part.strip())
        try:
            read.append(parse_quantity(f"{match[1]} {match[2] or unit}".strip() if match else part, own.dimension))
        except ValueError as error:
            raise InputError(f"vary {name}={values}: {part.strip()!r}: {error}") from None
    if ".." not in values:
        return read
    if len(read) != 2 or read[0].value > read[1].value:
        raise InputError(f"vary {name}={values}: expected LOW..HIGH, the lower one first")
    low, high = read
    number, _, written = low.text.partition(" ")
    if high.value > low.value * 2**_DOUBLINGS:
        raise InputError(f"vary {name}={values}: more than {_DOUBLINGS} doublings from end to end; name the values")
    doubled = []
    factor = 1
    while low.value * factor < high.value:
        doubled.append(parse_quantity(f"{_plain(float(number) * factor)} {written}", own.dimension))
        factor *= 2
    return [*doubled, high]


def _plain(number: float) -> str:
    """All digits and no exponent, as `parse_quantity` reads it: `1048576`, `0.5`."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def _with_figure(target: Target, owner: Engine | Memory | Link, figure: str, quantity: Quantity) -> Target:
    figures = {**owner.figures, figure: Figure(quantity=quantity, source=_EXPLORED, verified=True)}
    if isinstance(owner, Memory):
        return replace(target, memories={**target.memories, owner.name: replace(owner, figures=figures)})
    if isinstance(owner, Link):
        return replace(target, links={**target.links, owner.name: replace(owner, figures=figures)})
    if figure in ("clock", "macs"):
        figures = _without_rates(figures)
    return replace(target, engines={**target.engines, owner.name: replace(owner, figures=figures)})


def _without_rates(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """A rate on a data sheet is width times clock; when one of those changes, it no longer holds."""
    return {name: figure for name, figure in figures.items() if not name.endswith(("_dense", "_sparse"))}


def _arrays(values: str, target: Target) -> list[Setting]:
    """`64x128` sets the sides in the order in which the file unrolls loops; `64` sets both."""
    engine = next((each for each in target.engines.values() if each.array), None)
    if engine is None or engine.array is None:
        raise InputError(f"vary 'array': target {target.id!r} describes no array; its engines have figures only")
    loops = [loop for loop, units in engine.array.unroll.items() if units > 1]
    own = [engine.array.unroll[loop] for loop in loops]
    found = [Setting(text="x".join(map(str, own)), value=float(math.prod(own)), target=target, is_own=True)]
    for sides in _sides(values, len(loops)):
        if sides != own:
            unroll = {**engine.array.unroll, **dict(zip(loops, sides, strict=True))}
            found.append(_with_array(target, engine, sides, replace(engine.array, unroll=unroll)))
    return found


def _sides(values: str, count: int) -> list[list[int]]:
    parts = [part.strip() for part in re.split(r"\.\.|,", values)]
    found = []
    for part in parts:
        match = _SIDES.fullmatch(part)
        if match is None or (match[2] and count != 2):
            raise InputError(f"vary array={values}: {part!r} is no side; expected such as 64 or 64x128")
        found.append([int(match[1]), int(match[2])] if match[2] else [int(match[1])] * count)
    if ".." not in values:
        return found
    if len(found) != 2 or any(len(set(sides)) > 1 for sides in found) or found[0] > found[1]:
        raise InputError(f"vary array={values}: expected LOW..HIGH, single sides, the lower one first")
    (low, *_), (high, *_) = found
    doubled = []
    while low < high:
        doubled.append([low] * count)
        low *= 2
    return [*doubled, [high] * count]


def _with_array(target: Target, engine: Engine, sides: list[int], array: Array) -> Setting:
    units = math.prod(sides)
    figures = _without_rates(engine.figures)
    if "macs" in figures:
        macs = parse_quantity(f"{units} MAC/cycle", figures["macs"].quantity.dimension)
        figures["macs"] = Figure(quantity=macs, source=_EXPLORED, verified=True)
    changed = replace(engine, array=array, figures=figures)
    varied = replace(target, engines={**target.engines, engine.name: changed})
    return Setting(text="x".join(map(str, sides)), value=float(units), target=varied, is_own=False)
