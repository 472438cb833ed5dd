"""Measured latencies of drawn networks, kept line by line: `python -m …latency.measured RUNTIME SECONDS [developing]`.

Each network is placed in several processes, paired with the table's reference kernel in every round, float and int8
side by side. A slice of so many seconds ends between two networks; the next goes on there.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bitwright.experiments.benchmarks.latency.draw import developing, drawn
from bitwright.experiments.benchmarks.latency.network_files import FORMATS, folder, network_files
from bitwright.experiments.benchmarks.latency.pool import Variant
from bitwright.hw_constraints.table.bench import Bench
from bitwright.hw_constraints.table.placement import Effort

PLACEMENTS = 3
LONGEST_MS = 250.0
_EFFORT = Effort(rounds=5, seconds=0.12)
_SECONDS_EACH = 8.0  # a network takes so long at most before a slice's end


@dataclass(frozen=True, kw_only=True)
class MeasuredLatency:
    """One network in one format on one runtime.

    Attributes:
        name: of the network.
        family: of the network.
        number_format: float32 or int8.
        runtime: the backend's name.
        threads: of the runtime.
        ratios: latency in relation to the reference kernel's, one a placement.
        reference_us: of the reference kernel then.
        rejected: why there is none.
    """

    name: str
    family: str
    number_format: str
    runtime: str
    threads: int
    ratios: tuple[float, ...]
    reference_us: float
    rejected: str = ""

    @property
    def us(self) -> float:
        """Its latency, µs: the median ratio times the reference kernel's own latency in the same rounds.

        Not the table's: beside a large network OpenVINO's reference kernel takes up to a fifth longer, which is the
        reference's matter and not the network's; figures taken minutes apart differ by their clocks instead, 1 % here.
        """
        return median(self.ratios) * self.reference_us


def latencies(runtime: str, threads: int = 1) -> dict[tuple[str, str], MeasuredLatency]:
    """What has been measured, by network and format."""
    file = _file(runtime, threads)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found = (MeasuredLatency(**{**record, "ratios": tuple(record["ratios"])}) for record in map(json.loads, lines))
    return {(each.name, each.number_format): each for each in found}


def measure(runtime: str, variants: Sequence[Variant], seconds: float, threads: int = 1) -> int:
    """Measures networks that are missing until the time is up; returns how many are still missing."""
    stop_at = time.monotonic() + seconds
    known = latencies(runtime, threads)
    missing = [each for each in variants if any((each.name, fmt) not in known for fmt in FORMATS)]
    done = 0
    with Bench(runtime, threads) as bench, _file(runtime, threads).open("a", encoding="utf-8") as out:
        for variant in missing:
            if time.monotonic() + _SECONDS_EACH > stop_at:
                break
            for each in _measure_one(bench, variant, runtime, threads):
                print(json.dumps(asdict(each)), file=out, flush=True)
            done += 1
    return len(missing) - done


def _measure_one(bench: Bench, variant: Variant, runtime: str, threads: int) -> Iterator[MeasuredLatency]:
    files = network_files(variant).files
    jobs = [{"file": str(files[number_format])} for number_format in FORMATS]
    found = bench.measure(jobs, placements=PLACEMENTS, effort=_EFFORT, seed=0)
    for number_format, each in zip(FORMATS, found, strict=True):
        seen = [one for one in each.get("placements", []) if not math.isnan(one["ratio"])]
        yield MeasuredLatency(
            name=variant.name,
            family=variant.family,
            number_format=number_format,
            runtime=runtime,
            threads=threads,
            ratios=tuple(one["ratio"] for one in seen),
            reference_us=median(one["reference_us"] for one in seen) if seen else math.nan,
            rejected=each.get("rejected", "" if seen else "no undisturbed round"),
        )


def _file(runtime: str, threads: int) -> Path:
    return folder() / f"latency-{runtime}-{threads}t.jsonl"


def main() -> int:
    """One slice."""
    runtime, seconds, *rest = sys.argv[1:]
    threads = int(rest[1]) if len(rest) > 1 else 1
    variants = developing() if rest[:1] == ["developing"] else drawn()
    print(f"{measure(runtime, variants, float(seconds), threads)} to measure")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
