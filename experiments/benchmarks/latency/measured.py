"""Measured latencies, kept line by line: `python -m …latency.measured SETTING SECONDS [drawn|developing|random]`.

Each network is placed in several processes, paired with the table's reference kernel in every round, float and int8
side by side. A slice of so many seconds ends between two networks; the next goes on there.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bitwright.experiments.benchmarks import places
from bitwright.experiments.benchmarks.latency.draw import developing, drawn
from bitwright.experiments.benchmarks.latency.network_files import FORMATS, TARGET, folder, network_files
from bitwright.experiments.benchmarks.latency.pool import Variant
from bitwright.hw_constraints.predict.random_networks import RandomNetwork, draw_networks
from bitwright.hw_constraints.table.bench import Bench
from bitwright.hw_constraints.table.placement import Effort
from bitwright.hw_constraints.target import load_target

PLACEMENTS = 15  # one file differs by 5 to 20 % from placement to placement
LONGEST_MS = 250.0
RANDOM = 40  # networks of the table's own draw, to adapt by
_EFFORT = Effort(rounds=5, seconds=0.12)
_SECONDS_EACH = 8.0  # a network takes so long at most before a slice's end


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where networks are measured.

    Attributes:
        name: of its file.
        runtime: the backend's name.
        threads: of the runtime.
        library: the folder under the peers' home with another version of the runtime; empty for this environment's.
    """

    name: str
    runtime: str
    threads: int = 1
    library: str = ""


SETTINGS = {
    each.name: each
    for each in (
        Setting(name="onnxruntime", runtime="onnxruntime"),
        Setting(name="openvino", runtime="openvino"),
        Setting(name="onnxruntime-2t", runtime="onnxruntime", threads=2),
        Setting(name="onnxruntime-1.23", runtime="onnxruntime", library="onnxruntime-1.23"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network to measure.

    Attributes:
        name: of it.
        family: of it; `random` for networks of the table's draw.
        files: by format.
    """

    name: str
    family: str
    files: dict[str, Path]


@dataclass(frozen=True, kw_only=True)
class MeasuredLatency:
    """One network in one format.

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

    def us(self, reference_us: float) -> float:
        """Its latency: the median of its ratios to the reference kernel in the same rounds, times that kernel's, µs.

        Rows of tables are ratios of the same kind. Clocks differ from hour to hour, and with them network and reference
        alike; what the reference takes beside a large network (other pages and caches: up to a fifth more in OpenVINO)
        is in both, too.
        """
        return median(self.ratios) * reference_us


def reference_of(found: Iterable[MeasuredLatency]) -> float:
    """The reference kernel's latency in one setting, µs: the median over its networks."""
    return median(each.reference_us for each in found if not each.rejected)


def latencies(setting: str) -> dict[tuple[str, str], MeasuredLatency]:
    """What has been measured, by network and format."""
    file = _file(SETTINGS[setting])
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found = (MeasuredLatency(**{**record, "ratios": tuple(record["ratios"])}) for record in map(json.loads, lines))
    return {(each.name, each.number_format): each for each in found}


def random_networks() -> list[RandomNetwork]:
    """The first of those that the table's kernels come from."""
    return draw_networks(RANDOM, seed=0)


def measure(setting: Setting, subjects: Sequence[Subject], seconds: float) -> int:
    """Measures networks that are missing until the time is up; returns how many are still missing."""
    stop_at = time.monotonic() + seconds
    known = latencies(setting.name)
    missing = [each for each in subjects if any((each.name, fmt) not in known for fmt in FORMATS)]
    done = 0
    if setting.library:
        os.environ["PYTHONPATH"] = str(places.peers_home() / setting.library)  # for the measuring process
    with Bench(setting.runtime, setting.threads) as bench, _file(setting).open("a", encoding="utf-8") as out:
        for subject in missing:
            if time.monotonic() + _SECONDS_EACH > stop_at:
                break
            for each in _measure_one(bench, subject, setting):
                print(json.dumps(asdict(each)), file=out, flush=True)
            done += 1
    return len(missing) - done


def _measure_one(bench: Bench, subject: Subject, setting: Setting) -> Iterator[MeasuredLatency]:
    jobs = [{"file": str(subject.files[number_format])} for number_format in FORMATS]
    found = bench.measure(jobs, placements=PLACEMENTS, effort=_EFFORT, seed=0)
    for number_format, each in zip(FORMATS, found, strict=True):
        seen = [one for one in each.get("placements", []) if not math.isnan(one["ratio"])]
        yield MeasuredLatency(
            name=subject.name,
            family=subject.family,
            number_format=number_format,
            runtime=setting.runtime,
            threads=setting.threads,
            ratios=tuple(one["ratio"] for one in seen),
            reference_us=median(one["reference_us"] for one in seen) if seen else math.nan,
            rejected=each.get("rejected", "" if seen else "no undisturbed round"),
        )


def _file(setting: Setting) -> Path:
    return folder() / f"latency-{setting.name}.jsonl"


def _of_pool(variants: Iterable[Variant]) -> list[Subject]:
    return [Subject(name=each.name, family=each.family, files=network_files(each).files) for each in variants]


def _of_random() -> list[Subject]:
    scheme, here = load_target(TARGET).scheme(), folder() / "random"
    here.mkdir(parents=True, exist_ok=True)
    subjects = []
    for network in random_networks():
        files = {number_format: here / f"{network.name}-{number_format}.onnx" for number_format in FORMATS}
        if not all(file.exists() for file in files.values()):
            files["float32"].write_bytes(network.float_file())
            files["int8"].write_bytes(network.int8_file(scheme))
        subjects.append(Subject(name=network.name, family="random", files=files))
    return subjects


_SUBJECTS = {
    "drawn": lambda: _of_pool(drawn()),
    "developing": lambda: _of_pool(developing()),
    "random": _of_random,
}


def main() -> int:
    """One slice."""
    setting, seconds, *rest = sys.argv[1:]
    subjects = _SUBJECTS[rest[0] if rest else "drawn"]()
    print(f"{measure(SETTINGS[setting], subjects, float(seconds))} to measure")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
