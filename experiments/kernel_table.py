"""What `bitwright measure kernels|merge|export|show` do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bitwright.experiments.console import Console
from bitwright.experiments.kernel_pool import (
    FORMATS,
    NETWORKS,
    Drawn,
    drawn_networks,
    heavy_networks,
    interspersed,
    rules_of,
    stray_kernels,
    whole_networks,
)
from bitwright.experiments.load_recipe import THIS_CPU, target_of_this_cpu
from bitwright.experiments.model_commands import check_runtime
from bitwright.experiments.tables import print_table
from bitwright.experiments.workbench import require_runtime
from bitwright.hw_constraints.backends import get_backend, list_backends
from bitwright.hw_constraints.kernels import Family, FusionRules, Kernel
from bitwright.hw_constraints.machine import usable_cpus
from bitwright.hw_constraints.table import KernelRow, KernelTable, NetworkRow, TableKey
from bitwright.hw_constraints.table.bench import Bench
from bitwright.hw_constraints.table.forest import forest_belief
from bitwright.hw_constraints.table.measuring import Network, Precision, measure_into
from bitwright.hw_constraints.table.placement import Effort
from bitwright.hw_constraints.table.reference import REFERENCE
from bitwright.hw_constraints.table.sampling import Plan, batches
from bitwright.hw_constraints.target import Target, load_target
from bitwright.quant.errors import InputError

# Many kernels known to 5 % say more than few known to 2 %: what a family's model cannot tell is 5 to 10 %.
_EFFORT = Effort(rounds=8, seconds=0.06)
_MOST_PLACEMENTS = 6
_NARROW = 0.03  # half width, in relation to the ratio, of what `show` calls well known


def target_and_runtime(target: str | None, runtime: str | None) -> tuple[Target, str]:
    """What to measure for: the runtime asked for, else the target's first that is here.

    Args:
        target: its name; None takes that of this processor.
        runtime: its name; None takes one of the target's.

    Raises:
        InputError: the target's artefacts do not run in that runtime, or none of its runtimes is here.
    """
    found = load_target(target_of_this_cpu("--target") if target in (None, THIS_CPU) else str(target))
    known = found.artifact.runtimes
    if runtime is not None:
        require_runtime(runtime)
        check_runtime(found, runtime, f"--runtime = {runtime!r}")
        return found, runtime
    here = [name for name in known if name in list_backends() and get_backend(name).available() is None]
    if not here:
        raise InputError(f"target {found.id!r}: none of its runtimes is here ({', '.join(known) or 'none is public'})")
    return found, here[0]


def default_table(runtime: str, threads: int) -> Path:
    """Where a table goes when nothing is said: a file a runtime, version and thread count."""
    key = TableKey.here(runtime, threads)
    return Path("tables") / f"{runtime}-{key.version}-{threads}t.table"


def measure_kernels(
    out: Path,
    target: Target,
    runtime: str,
    *,
    threads: int,
    minutes: float,
    families: Sequence[str],
    formats: Sequence[str],
    half_width: float,
    seed: int,
    console: Console,
) -> KernelTable:
    """Measures into a table until it has had its minutes, those of earlier calls included.

    Raises:
        InputError: an argument is not usable, the table holds for something else, or another process writes.
    """
    _check_above_0("--minutes", minutes)
    _check_above_0("--half-width", half_width)
    if out.is_dir():
        raise InputError(f"--out = {str(out)!r}: is a folder; name a file in it")
    if seed < 0:
        raise InputError(f"--seed = {seed}; expected 0 or more")
    if threads > len(usable_cpus()):  # before there is a table of so many
        raise InputError(f"--threads = {threads}; this process may use {len(usable_cpus())} processors")
    _check_known("--families", families, tuple(map(str, Family)))
    _check_known("--formats", formats, FORMATS)
    if not formats:
        raise InputError(f"--formats names none; there are: {', '.join(FORMATS)}")
    key = TableKey.here(runtime, threads)
    with KernelTable.writing(out, key, REFERENCE.to_json()) as table:
        seconds = 60 * minutes - sum(each.seconds for each in table.sessions)
        if seconds <= 0:
            console.say(f"{out} has had its {minutes:g} minutes; give more --minutes to go on")
        else:
            rules, precision = rules_of(table), Precision(half_width=half_width, most=_MOST_PLACEMENTS)
            networks = _drawn(rules, target, formats, seed, console)
            heavy = list(heavy_networks(rules, target, formats, seed=seed))
            lots = [*(each.kernels for each in (*networks, *heavy)), *stray_kernels(rules, formats, seed=seed)]
            kernels = [wanted for each in lots if (wanted := _wanted(each, families))]
            chosen = batches(table, kernels, forest_belief, Plan())
            whole = [] if families else whole_networks(networks, heavy)
            subjects = interspersed(table, chosen, whole, forest_belief, most=precision.most)
            _measure(table, subjects, seconds, precision, seed, console)
    return KernelTable.load(out)


def _wanted(kernels: Sequence[Kernel], families: Sequence[str]) -> list[Kernel]:
    return [each for each in kernels if not families or str(each.family) in families]


def _drawn(rules: FusionRules, target: Target, formats: Sequence[str], seed: int, console: Console) -> list[Drawn]:
    networks: list[Drawn] = []
    with console.track("networks drawn", total=NETWORKS * len(formats)) as advance:
        for network in drawn_networks(rules, target, formats, seed=seed):
            networks.append(network)
            advance(len(networks))
    return networks


def _measure(
    table: KernelTable,
    subjects: Iterator[Sequence[Kernel | Network]],
    seconds: float,
    precision: Precision,
    seed: int,
    console: Console,
) -> None:
    said: Counter[str] = Counter()
    with console.track(str(table.key), total=round(seconds)) as advance:

        def progress(rows: Sequence[KernelRow | NetworkRow], spent: float) -> None:
            said.update(_kind(row) for row in rows)
            note = ", ".join(f"{count} {what}" for what, count in said.items())
            advance(min(round(spent), round(seconds)), note)

        with Bench(table.key.runtime, table.key.threads) as bench:
            measure_into(
                table,
                bench,
                subjects,
                seconds=seconds,
                precision=precision,
                effort=_EFFORT,
                seed=seed,
                progress=progress,
            )


def _kind(row: KernelRow | NetworkRow) -> str:
    return "rejected" if row.rejected else "kernels" if isinstance(row, KernelRow) else "networks"


def _check_above_0(option: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InputError(f"{option} = {value:g}; expected a number above 0")


def _check_known(option: str, asked: Sequence[str], there_are: Sequence[str]) -> None:
    if unknown := sorted(set(asked) - set(there_are)):
        raise InputError(f"{option} = {','.join(unknown)}; there are: {', '.join(there_are)}")


def summary(table: KernelTable) -> dict[str, Any]:
    """What is in a table, as plain values."""
    groups: dict[str, list[KernelRow]] = {}
    for row in table.rows:
        groups.setdefault(f"{row.kernel.family} {row.kernel.format}", []).append(row)
    rounds, disturbed = sum(row.rounds for row in table.rows), sum(row.disturbed for row in table.rows)
    return {
        "table": str(table.path),
        "key": table.key.to_json(),
        "content_hash": table.content_hash,
        "kernels": len(table.measured),
        "networks": len(table.networks),
        "rejected": dict(Counter(row.rejected for row in table.rows if row.rejected).most_common()),
        "reference_us": table.reference_us if table.sessions else None,
        "minutes": sum(each.seconds for each in table.sessions) / 60,
        "sessions": [each.to_json() for each in table.sessions],
        "disturbed_share": disturbed / max(1, rounds + disturbed),
        "facts": sorted(table.facts),
        "groups": {name: _figures(rows, table) for name, rows in sorted(groups.items())},
    }


def _figures(rows: Sequence[KernelRow], table: KernelTable) -> dict[str, Any]:
    measured = [row for row in rows if not row.rejected]
    widths = sorted(row.half_width / row.ratio for row in measured if row.ratio > 0)
    latencies = sorted(row.ratio * table.reference_us for row in measured)
    return {
        "measured": len(measured),
        "rejected": len(rows) - len(measured),
        "median_us": latencies[len(latencies) // 2] if latencies else None,
        "longest_us": latencies[-1] if latencies else None,
        "median_half_width": widths[len(widths) // 2] if widths else None,
        "narrow_share": sum(width <= _NARROW for width in widths) / len(measured) if measured else None,
    }


def print_summary(table: KernelTable) -> None:
    """What is in a table, for people."""
    said = summary(table)
    heads = (
        "family",
        "format",
        "kernels",
        "rejected",
        "median µs",
        "longest µs",
        "median ±",
        f"within ± {100 * _NARROW:.0f} %",
    )
    rows = [
        (*name.split(), str(each["measured"]), str(each["rejected"]), *_texts(each))
        for name, each in said["groups"].items()
    ]
    print_table(heads, rows, title=f"{table.path}: {table.key}")
    reference = f"{said['reference_us']:.1f} µs" if said["reference_us"] else "not measured yet"
    print(
        f"{said['kernels']} kernels and {said['networks']} networks in {said['minutes']:.1f} minutes; reference kernel "
        f"{reference}; {100 * said['disturbed_share']:.1f} % of the samples were disturbed and dropped; "
        "± is half of the 95 % interval"
    )
    for message, count in list(said["rejected"].items())[:5]:
        print(f"{count} rejected: {message[:160]}")
    print(f"content {said['content_hash']}")


def _texts(figures: dict[str, Any]) -> tuple[str, str, str, str]:
    if not figures["measured"]:
        return ("–",) * 4
    width, share = figures["median_half_width"], figures["narrow_share"]
    return (
        _time(figures["median_us"]),
        _time(figures["longest_us"]),
        "–" if width is None else f"{100 * width:.1f} %",
        f"{100 * share:.0f} %",
    )


def _time(us: float) -> str:
    """Three digits; a cost that drowns in the noise of what surrounds the kernel may come out below 0."""
    return f"{us:,.0f}" if us >= 1000 else f"{us:.3g}" if us > 0 else "about 0"
