"""What a latency table is a table of: device, clocks, runtime with its version, threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.backends.base import check_threads
from bitwright.hw_constraints.machine import Machine, this_machine
from bitwright.quant.errors import InputError

_MAX_KHZ = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
_SPIN = 20_000  # turns of an empty loop, some hundred microseconds
_SPIN_REPEATS = 9


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """What the machine says of its clocks.

    Attributes:
        governor: the clock governor; None where the system does not say (virtual machines).
        max_mhz: the highest frequency; None where the system does not say.
    """

    governor: str | None
    max_mhz: float | None


def clocks_of(machine: Machine) -> Clocks:
    """The clocks of the computer that this process runs on."""
    return Clocks(governor=machine.governor, max_mhz=int(_MAX_KHZ.read_text()) / 1e3 if _MAX_KHZ.exists() else None)


def spin_turns_per_us() -> float:
    """How fast an empty loop turns just now: where no frequency is to be read, it shows a processor that is throttled.

    It compares moments of one machine with one interpreter, nothing else.
    """
    rates = []
    for _ in range(_SPIN_REPEATS):
        start = time.perf_counter()
        for _ in range(_SPIN):
            pass
        rates.append(_SPIN / (time.perf_counter() - start) / 1e6)
    return median(rates)


@dataclass(frozen=True, kw_only=True)
class TableKey:
    """Latencies of tables with equal keys compare; others are never mixed.

    Attributes:
        device: the machine.
        clocks: as the machine says.
        runtime: the backend's name.
        version: the runtime's.
        threads: of the runtime.
    """

    device: Machine
    clocks: Clocks
    runtime: str
    version: str
    threads: int

    @classmethod
    def here(cls, runtime: str, threads: int) -> TableKey:
        """The key of what is measured on this machine now.

        Raises:
            InputError: there is no such runtime, or a thread count below one.
            MissingExtraError: the runtime is not installed.
        """
        check_threads(threads)
        version = get_backend(runtime).version()
        machine = this_machine()
        return cls(device=machine, clocks=clocks_of(machine), runtime=runtime, version=version, threads=threads)

    def differences(self, other: TableKey) -> tuple[str, ...]:
        """What differs, in words: `threads 1, here 2`; empty when latencies compare."""
        return tuple(_differences(self.to_json(), other.to_json()))

    def __str__(self) -> str:
        plural = "s" if self.threads > 1 else ""
        return f"{self.runtime} {self.version}, {self.threads} thread{plural}, {self.device.cpu_model}"

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back."""
        return {
            "device": self.device.to_json(),
            "clocks": asdict(self.clocks),
            "runtime": self.runtime,
            "version": self.version,
            "threads": self.threads,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TableKey:
        """Reads what `to_json` wrote.

        Raises:
            InputError: a field is missing or unknown.
        """
        try:
            device = Machine(**{**record["device"], "isa": frozenset(record["device"]["isa"])})
            return cls(**{**record, "device": device, "clocks": Clocks(**record["clocks"])})
        except (KeyError, TypeError) as error:
            raise InputError(f"not the key of a latency table: {error}") from error


def _differences(mine: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in mine.items():
        if isinstance(value, dict):
            yield from _differences(value, other[name], f"{name}.")
        elif value != other[name]:
            yield f"{prefix}{name} {_text(value)}, here {_text(other[name])}"


def _text(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)
