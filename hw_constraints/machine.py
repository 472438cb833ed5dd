"""The computer that a figure was measured on: processor, instruction sets, cores, load, clock governor.

Standard library of Python 3.8 alone: the runner on a device says with this file where it is.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
# x86 names as in Linux' /proc/cpuinfo `flags`, Arm's as in its `Features`.
_NOTED_ISA = frozenset(
    {"sse4_2", "ssse3", "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"}
    | {"avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"}
)


@dataclass(frozen=True)  # Python 3.8 has no kw_only
class Machine:
    """What a latency depends on besides the program.

    Attributes:
        cpu_model: the processor's own name.
        architecture: `x86_64`, `aarch64`, …
        isa: the instruction sets that matter to arithmetic.
        cores: logical processors of the machine; a measurement may be pinned to fewer.
        governor: the clock governor, None where the system does not say (virtual machines).
    """

    cpu_model: str
    architecture: str
    isa: frozenset[str]
    cores: int
    governor: str | None

    @property
    def has_int8_dot_product(self) -> bool:
        """Whether one instruction multiplies 8-bit codes and adds the products in 32 bits."""
        return bool(self.isa & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})

    @property
    def saturates_u8s8(self) -> bool:
        """Whether u8 x s8 kernels have only `vpmaddubsw`, which adds two products in 16 bits with saturation.

        Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, PMADDUBSW.
        """
        return self.architecture in ("x86_64", "AMD64", "i686") and not self.has_int8_dot_product

    def to_json(self) -> dict[str, object]:
        """Plain values for a record."""
        return {
            "cpu_model": self.cpu_model,
            "architecture": self.architecture,
            "isa": sorted(self.isa),
            "cores": self.cores,
            "governor": self.governor,
        }


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """The model's name and the noted instruction sets from the text of Linux' /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    model = fields.get("model name") or fields.get("Hardware") or platform.processor() or "unknown"
    return model, frozenset(flags) & _NOTED_ISA


@lru_cache(maxsize=None)
def this_machine() -> Machine:
    """Describes the computer that this process runs on."""
    text = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    model, isa = parse_cpuinfo(text)
    return Machine(
        cpu_model=model,
        architecture=platform.machine(),
        isa=isa,
        cores=os.cpu_count() or 1,  # not the affinity: a pinned measurement would change what the machine is
        governor=_GOVERNOR.read_text().strip() if _GOVERNOR.exists() else None,
    )


def usable_cpus() -> tuple[int, ...]:
    """The logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def load_average() -> float:
    """Runnable processes over the last minute (POSIX load average); NaN where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
