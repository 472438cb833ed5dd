"""`measure`: times files against each other, and kernels into a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitwright.experiments.command_group import CommandGroup
from bitwright.experiments.commands.artefacts import Runtimes, Threads
from bitwright.experiments.commands.recipes import Json, Quiet

if TYPE_CHECKING:
    from bitwright.hw_constraints.measure import Measurement


def files(
    files: Annotated[list[Path], typer.Argument(help="ONNX files; the first is what the others are compared with.")],
    runtime: Runtimes = None,
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(help="At most so long for each runtime.")] = 30.0,
    on: Annotated[
        str | None, typer.Option(help="A device: ssh://user@host:port/folder, adb://SERIAL/folder, local:/folder.")
    ] = None,
    json: Json = False,
) -> int:
    """Time files against each other, interleaved in one process, with the ratio's 95 % interval."""
    from bitwright.experiments import measure_on_device, model_commands
    from bitwright.experiments.console import Console
    from bitwright.experiments.tables import print_json

    if on is None:
        measurements = model_commands.measure_files(files, runtime, threads=threads, seconds=seconds)
        records = {name: each.to_json() for name, each in measurements.items()}
        remarks = []
    else:
        results = measure_on_device.measure_on_device(
            files, on, runtime, threads=threads, seconds=seconds, console=Console(quiet=json)
        )
        measurements = {name: each.measurement for name, each in results.items()}
        records = {name: measure_on_device.to_json(each) for name, each in results.items()}
        every = [remark for each in results.values() for remark in measure_on_device.remarks(each)]
        remarks = list(dict.fromkeys(every))
    if json:
        print_json(records)
    else:
        _print_ratios(measurements)
        print("\n".join(remarks), end="\n" * bool(remarks))
    return 0


def _print_ratios(measurements: Mapping[str, Measurement]) -> None:
    from bitwright.experiments.tables import print_table

    for name, each in measurements.items():
        reference = next(iter(each.times_us))
        rows = [(file, str(each.latency(file)), str(each.ratio(file, reference))) for file in each.times_us]
        print_table(("file", "latency", f"against {reference}"), rows, title=name)


TableFile = Annotated[Path, typer.Argument(help="A latency table that `bitwright measure kernels` made.")]


def kernels(
    target: Annotated[
        str | None,
        typer.Option(help="The target that says how int8 networks are quantized; this processor's by default."),
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="A runtime; the target's first that is here by default.")] = None,
    threads: Threads = 1,
    out: Annotated[
        Path | None, typer.Option(help="The table; tables/RUNTIME-VERSION-THREADS.table by default.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Minutes to measure, those of earlier calls with this table included.")
    ] = 25.0,
    families: Annotated[
        str, typer.Option(help="Only these families, such as conv,depthwise,linear; all by default.")
    ] = "",
    formats: Annotated[str, typer.Option(help="float32, int8 or both.")] = "float32,int8",
    half_width: Annotated[
        float, typer.Option(help="Repeat until the 95 % interval is that narrow: 0.05 is ± 5 % of the latency.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the networks and kernels that are drawn; 0 or more.")] = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Measure fused kernels of a runtime into a table, where the predictor is least sure. Goes on where it stopped."""
    from bitwright.experiments import kernel_table
    from bitwright.experiments.console import Console
    from bitwright.experiments.tables import print_json

    found, name = kernel_table.target_and_runtime(target, runtime)
    table = kernel_table.measure_kernels(
        out or kernel_table.default_table(name, threads),
        found,
        name,
        threads=threads,
        minutes=minutes,
        families=_listed(families),
        formats=_listed(formats),
        half_width=half_width,
        seed=seed,
        console=Console(quiet=quiet),
    )
    if json:
        print_json(kernel_table.summary(table))
    else:
        kernel_table.print_summary(table)
    return 0


def show(table: TableFile, json: Json = False) -> int:
    """Say what is in a latency table: kernels by family and format, their intervals, what was rejected."""
    from bitwright.experiments import kernel_table
    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints.table import KernelTable

    loaded = KernelTable.load(table)
    if json:
        print_json(kernel_table.summary(loaded))
    else:
        kernel_table.print_summary(loaded)
    return 0


def merge(
    tables: Annotated[list[Path], typer.Argument(help="Latency tables of one device, runtime, version, thread count.")],
    out: Annotated[Path, typer.Option(help="The new table.")],
    json: Json = False,
) -> int:
    """Put latency tables together; of what several measured, the narrowest interval stays."""
    from bitwright.experiments.output_file import check_output
    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints.table import KernelTable
    from bitwright.hw_constraints.table import merge as merge_tables

    check_output("--out", out)
    double = merge_tables([KernelTable.load(each) for each in tables], out)
    merged = KernelTable.load(out)
    if json:
        counts = {"kernels": len(merged), "networks": len(merged.networks), "in_several": double}
        print_json({"table": str(out), **counts, "content_hash": merged.content_hash})
    else:
        print(f"{out}: {len(merged)} kernels and {len(merged.networks)} networks, {double} of them in several tables")
    return 0


def export(
    table: TableFile,
    parquet: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    json: Json = False,
) -> int:
    """Write a latency table as Parquet, a row a kernel."""
    from bitwright.experiments.output_file import check_output
    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints.table import KernelTable
    from bitwright.hw_constraints.table.parquet import export_parquet

    check_output("--parquet", parquet)
    rows = export_parquet(KernelTable.load(table), parquet)
    if json:
        print_json({"file": str(parquet), "rows": rows})
    else:
        print(f"{parquet}: {rows} rows")
    return 0


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


COMMANDS = (
    CommandGroup(
        name="measure",
        help=(
            "Time files against each other: `bitwright measure A.onnx B.onnx`, with the options of `measure files`. "
            "Or measure a runtime's kernels into a table that whole networks are predicted from."
        ),
        commands=(files, kernels, show, merge, export),
    ),
)
