"""A machine by formula: what kernels and networks take there, so that predictions can be held against truth."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from bitwright.hw_constraints.kernels import Kernel, Split, split
from bitwright.hw_constraints.machine import Machine
from bitwright.hw_constraints.predict.random_networks import RandomNetwork, draw_networks
from bitwright.hw_constraints.table import Clocks, KernelRow, KernelTable, NetworkRow, TableKey
from bitwright.hw_constraints.table.reference import REFERENCE
from bitwright.hw_constraints.table.session import Session
from bitwright.hw_constraints.target import load_target

RUNTIME = "onnxruntime"
KEY = TableKey(
    device=Machine(cpu_model="Formula One", architecture="x86_64", isa=frozenset({"avx2"}), cores=1, governor=None),
    clocks=Clocks(governor=None, max_mhz=None),
    runtime=RUNTIME,
    version="1.0",
    threads=1,
)
REFERENCE_US = 200.0
CALL_US = 8.0
DATE = "2026-01-02T03:04:05+00:00"
SCHEME = load_target("x86-vnni").scheme()


def kernel_us(kernel: Kernel, speed: float = 1.0) -> float:
    """A start, work in blocks of 16 channels, and bytes; codes compute three times as fast and start more slowly."""
    channels = kernel.weight[0] if kernel.weight else 1
    work = kernel.macs * (-(-channels // 16) * 16 / channels) / (150e3 if kernel.format == "int8" else 50e3)
    start = 1.2 if kernel.format == "int8" else 0.6
    return (start + work + kernel.bytes / 20e3) / speed


def network_us(kernels: Sequence[Kernel], speed: float = 1.0) -> float:
    """Its kernels one behind the other, and the call."""
    return CALL_US + sum(kernel_us(kernel, speed) for kernel in kernels)


def networks(count: int, seed: int = 0) -> list[RandomNetwork]:
    return draw_networks(count, seed=seed)


@cache
def splits(count: int, seed: int = 0) -> dict[str, Split]:
    """By `NAME/FORMAT`."""
    found = {}
    for network in networks(count, seed):
        found[f"{network.name}/float32"] = split(network.float_file(), RUNTIME)
        found[f"{network.name}/int8"] = split(network.int8_file(SCHEME), RUNTIME)
    return found


def kernel_row(kernel: Kernel, us: float) -> KernelRow:
    ratio = us / REFERENCE_US
    return KernelRow(kernel=kernel, ratio=ratio, low=0.98 * ratio, high=1.02 * ratio, date=DATE)


def network_row(name: str, kernels: tuple[Kernel, ...], us: float) -> NetworkRow:
    ratio, model_hash = us / REFERENCE_US, hashlib.sha256(name.encode()).hexdigest()
    return NetworkRow(name=name, model_hash=model_hash, kernels=kernels, ratio=ratio, low=ratio, high=ratio, date=DATE)


def table(path: Path, count: int = 20, noise: float = 0.01, speed: float = 1.0, key: TableKey = KEY) -> KernelTable:
    """A table of the machine: the kernels of `count` random networks, and the networks whole."""
    generator = np.random.default_rng(0)

    def measured(us: float) -> float:
        return us * float(np.exp(noise * generator.standard_normal()))

    found = {name: tuple(placed.kernel for placed in each.kernels) for name, each in splits(count).items()}
    kernels = dict.fromkeys(kernel for each in found.values() for kernel in each)
    rows = [kernel_row(kernel, measured(kernel_us(kernel, speed))) for kernel in kernels]
    whole = [network_row(name, each, measured(network_us(each, speed))) for name, each in found.items()]
    session = Session(
        started=DATE,
        seconds=1.0,
        kernels=len(rows),
        reference_us=REFERENCE_US,
        spin_turns_per_us=50.0,
        load_before=0.0,
        load_after=0.0,
    )
    with KernelTable.writing(path, key, REFERENCE.to_json()) as writing:
        writing.add([*rows, *whole], sessions=[session])
    return KernelTable.load(path)
