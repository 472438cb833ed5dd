"""Fifth pass: which tensors stay in the memory beside the engines, and which go to the memory behind it.

A tensor would rather stay. Walking through the program, wherever those that live together do not fit, the one that is
needed last goes (Belady 1966), those that the operation itself uses only when no other is left. A tensor that went is
written and read by tiles.

At first nothing is kept free for tiles: where not even the smallest one finds room, `tiled_ops.tile` makes it. Over 15
networks on six accelerators, keeping free a quarter of the memory (at most twice the operation's weights) moved 1.0 %
more bytes from and to the memory behind in the geometric mean and 16 % more at worst, a 16th 0.4 and 9 %, nothing 0.0
and 0.6 %. Where buffers then find no addresses for the holes between them, `lowering` keeps some free.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from bitwright.hw_constraints.lower.hardware import Hardware
from bitwright.hw_constraints.lower.layout import storage_of
from bitwright.hw_constraints.lower.program import Program
from bitwright.hw_constraints.lower.storage import PLAIN, Storage
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TensorRef

# What a memory of unknown size holds at most: "4 PiB of physical address space" of x86-64 with five levels of pages
# (Linux, Documentation/arch/x86/x86_64/5level-paging.rst), as much as 64-bit Arm's with ARMv8.2-LPA's 52 bits.
ADDRESSABLE_BYTES = 2**52


@dataclass(frozen=True)
class Lifetime:
    """A stored tensor's bytes, rounded up to what addresses are multiples of, and when it lives.

    `first` is the position of its writer (-1: before the program), `last` that of its last reader.
    """

    bytes: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Residency:
    """Where tensors live.

    Attributes:
        lifetimes: of all stored tensors.
        storages: how their elements lie.
        beside: those that stay beside the engines.
        spilled: those that would have stayed, had there been room; and why they do not.
        steps: how many blocks there are.
    """

    lifetimes: Mapping[TensorRef, Lifetime]
    storages: Mapping[TensorRef, Storage]
    beside: frozenset[TensorRef]
    spilled: Mapping[TensorRef, str]
    steps: int

    @cached_property
    def live_bytes(self) -> list[int]:
        """What the tensors beside the engines take while each block runs."""
        change = [0] * (self.steps + 1)
        for ref in self.beside:
            lifetime = self.lifetimes[ref]
            change[max(lifetime.first, 0)] += lifetime.bytes
            change[lifetime.last + 1] -= lifetime.bytes
        live, total = [], 0
        for each in change[:-1]:
            total += each
            live.append(total)
        return live

    def without(self, refs: Mapping[TensorRef, str]) -> Residency:
        """The same with more tensors gone, and why."""
        return Residency(
            lifetimes=self.lifetimes,
            storages=self.storages,
            beside=self.beside - refs.keys(),
            spilled={**self.spilled, **refs},
            steps=self.steps,
        )


def place(program: Program, hardware: Hardware, *, kept_free: int = 0) -> Residency:
    """Decides for every tensor.

    Args:
        program: the blocks in order.
        hardware: the target's memories.
        kept_free: how many bytes beside the engines tensors leave to tiles, and to holes between buffers.

    Raises:
        InputError: a tensor is larger than every memory.
    """
    storages = _storages(program)
    lifetimes = _lifetimes(program, storages)
    _check_sizes(lifetimes, hardware)
    everything = Residency(
        lifetimes=lifetimes, storages=storages, beside=frozenset(), spilled={}, steps=len(program.blocks)
    )
    if hardware.on_chip is None:
        return everything
    capacity = (hardware.on_chip.size_bytes or 0) - kept_free
    candidates = _candidates(program, lifetimes)
    spilled = _spills(program, lifetimes, candidates, capacity, hardware)
    return Residency(
        lifetimes=lifetimes,
        storages=storages,
        beside=frozenset(candidates - spilled.keys()),
        spilled=spilled,
        steps=len(program.blocks),
    )


def _storages(program: Program) -> dict[TensorRef, Storage]:
    """How each computed tensor and each view of one lies; elements take the room of their format."""
    found = {}
    graph = program.graph
    touched = [ref for block in program.blocks for ref in (*block.reads, *block.writes)]
    leaving = [*graph.inputs, *graph.outputs, *(ref for pair in graph.state for ref in pair)]
    for ref in dict.fromkeys([*touched, *leaving]):
        while ref not in found:
            shape = tuple(size or 0 for size in graph.tensors[ref].shape)
            found[ref] = storage_of(program.target, program.layouts.get(ref, PLAIN), shape, program.bits(ref))
            ref = program.views.get(ref, ref)
    return found


def _lifetimes(program: Program, storages: Mapping[TensorRef, Storage]) -> dict[TensorRef, Lifetime]:
    first: dict[TensorRef, int] = {}
    last: dict[TensorRef, int] = {}
    for position, block in enumerate(program.blocks):
        for ref in block.reads:
            last[program.stored(ref)] = position
        for ref in block.writes:
            first[ref] = position
            last.setdefault(ref, position)
    end = len(program.blocks) - 1
    graph = program.graph
    for ref in (*graph.outputs, *(after for _, after in graph.state)):
        last[program.stored(ref)] = end
    constants = {ref for ref in last if graph.is_constant(ref) or ref in program.known}
    align = program.alignment_bytes
    return {
        ref: Lifetime(-(-storages[ref].bytes // align) * align, first.get(ref, -1), max(when, first.get(ref, -1), 0))
        for ref, when in last.items()
        if ref not in constants
    }


def _check_sizes(lifetimes: Mapping[TensorRef, Lifetime], hardware: Hardware) -> None:
    sizes = {memory.name: memory.size_bytes for memory in (hardware.beside, hardware.behind) if memory}
    if not lifetimes:
        return
    ref = max(lifetimes, key=lambda each: lifetimes[each].bytes)
    if lifetimes[ref].bytes > max(ADDRESSABLE_BYTES if size is None else size for size in sizes.values()):
        held = ", ".join(
            f"{name} has {size:,} bytes" if size is not None else f"{name} has at most {ADDRESSABLE_BYTES:,} bytes"
            for name, size in sizes.items()
        )
        raise InputError(
            f"tensor {ref} takes {lifetimes[ref].bytes:,} bytes, more than every memory: {held}; "
            "lower the resolution or the channels there, or run the network in parts"
        )


def _candidates(program: Program, lifetimes: Mapping[TensorRef, Lifetime]) -> set[TensorRef]:
    """Tensors that the accelerator alone touches; what comes in, goes out or crosses sides lies behind."""
    graph = program.graph
    outside = {program.stored(ref) for ref in (*graph.inputs, *graph.outputs)}
    outside |= {program.stored(ref) for pair in graph.state for ref in pair}
    for block in program.blocks:
        if not block.on_accelerator:
            outside.update(program.stored(ref) for ref in (*block.reads, *block.writes))
    return set(lifetimes) - outside


def _spills(
    program: Program,
    lifetimes: Mapping[TensorRef, Lifetime],
    candidates: set[TensorRef],
    capacity: int,
    hardware: Hardware,
) -> dict[TensorRef, str]:
    spilled: dict[TensorRef, str] = {}
    begins: list[list[TensorRef]] = [[] for _ in program.blocks]
    ends: list[list[TensorRef]] = [[] for _ in program.blocks]
    for ref in candidates:
        begins[max(lifetimes[ref].first, 0)].append(ref)
        ends[lifetimes[ref].last].append(ref)
    by_last: list[tuple[int, int, TensorRef]] = []
    live = 0
    for position, block in enumerate(program.blocks):
        for ref in begins[position]:
            live += lifetimes[ref].bytes
            heapq.heappush(by_last, (-lifetimes[ref].last, -lifetimes[ref].bytes, ref))
        if live > capacity:
            used = {program.stored(ref) for ref in (*block.reads, *block.writes)}
            kept = []
            while live > capacity and by_last:
                entry = heapq.heappop(by_last)
                if -entry[0] < position:
                    continue  # nobody needs it any more
                if entry[2] in used:
                    kept.append(entry)
                    continue
                live -= _go(entry[2], block.name, lifetimes, spilled, capacity, hardware)
            # What the operation itself uses goes last, the largest first.
            kept.sort(key=lambda entry: entry[1])
            while live > capacity and kept:
                live -= _go(kept.pop(0)[2], block.name, lifetimes, spilled, capacity, hardware)
            for entry in kept:
                heapq.heappush(by_last, entry)
        for ref in ends[position]:
            if ref not in spilled:
                live -= lifetimes[ref].bytes
    return spilled


def _go(
    ref: TensorRef,
    when: str,
    lifetimes: Mapping[TensorRef, Lifetime],
    spilled: dict[TensorRef, str],
    capacity: int,
    hardware: Hardware,
) -> int:
    """Notes a spill; the bytes that it frees."""
    if ref in spilled:
        return 0
    size = lifetimes[ref].bytes
    assert hardware.on_chip is not None
    spilled[ref] = (
        f"{ref} ({size:,} bytes) goes to {hardware.behind.name}: with it, the tensors that live while {when!r} runs "
        f"are more than the {capacity:,} bytes of {hardware.on_chip.name}"
    )
    return size
