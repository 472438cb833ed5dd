"""Tables for tests: made-up kernels and rows, no runtime involved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.kernels.kernel import Family, Kernel
from bitwright.hw_constraints.machine import Machine
from bitwright.hw_constraints.table import Clocks, KernelRow, KernelTable, NetworkRow, TableKey
from bitwright.hw_constraints.table.reference import REFERENCE
from bitwright.hw_constraints.table.session import Session

KEY = TableKey(
    device=Machine(
        cpu_model="Some CPU", architecture="x86_64", isa=frozenset({"avx2", "fma"}), cores=4, governor="performance"
    ),
    clocks=Clocks(governor="performance", max_mhz=3600.0),
    runtime="onnxruntime",
    version="1.31.1",
    threads=1,
)
REFERENCE_RECORD = REFERENCE.to_json()
DATE = "2026-01-02T03:04:05+00:00"


def kernel(channels: int, number_format: str = "float32") -> Kernel:
    shape = (1, channels, 8, 8)
    return Kernel(
        family=Family.POINTWISE,
        op="Conv",
        format=number_format,
        inputs=(shape,),
        outputs=(shape,),
        weight=(channels, channels, 1, 1),
    )


def row(channels: int, ratio: float = 1.5, half_width: float = 0.01, **more: Any) -> KernelRow:
    return KernelRow(
        kernel=kernel(channels),
        ratio=ratio,
        low=ratio - half_width,
        high=ratio + half_width,
        placements=6,
        rounds=48,
        disturbed=1,
        basis="wall time",
        date=DATE,
        **more,
    )


def network_row(name: str = "chain", ratio: float = 3.0) -> NetworkRow:
    return NetworkRow(
        name=name,
        model_hash=f"hash of {name}",
        kernels=(kernel(3), kernel(4)),
        ratio=ratio,
        low=ratio - 0.1,
        high=ratio + 0.1,
        date=DATE,
    )


def session(started: str = DATE, reference_us: float = 240.0) -> Session:
    return Session(
        started=started,
        seconds=10.0,
        kernels=3,
        reference_us=reference_us,
        spin_turns_per_us=50.0,
        load_before=0.1,
        load_after=0.2,
    )


def written(path: Path, rows: Sequence[KernelRow | NetworkRow], key: TableKey = KEY, **more: Any) -> KernelTable:
    """A table on disk, read back."""
    with KernelTable.writing(path, key, REFERENCE_RECORD) as table:
        table.add(rows, **{"sessions": [session()], **more})
    return KernelTable.load(path)


def with_threads(threads: int) -> TableKey:
    return replace(KEY, threads=threads)
