"""A latency table as Parquet, for whoever reads columns."""

from __future__ import annotations

import json
from pathlib import Path

from bitwright.hw_constraints.table.database import as_text
from bitwright.hw_constraints.table.store import KernelTable
from bitwright.quant.errors import InputError, MissingExtraError


def export_parquet(table: KernelTable, file: Path) -> int:
    """Writes the kernels' rows; what the table holds for is in the file's metadata, under `bitwright`.

    Returns:
        The number of rows.

    Raises:
        MissingExtraError: pyarrow is not installed.
        InputError: the file cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("a Parquet file", "parquet") from error
    reference_us = table.reference_us
    lines = [
        {
            **row.to_json(),
            "kernel": as_text(row.kernel.to_json()),
            "family": str(row.kernel.family),
            "op": row.kernel.op,
            "format": row.kernel.format,
            "macs": row.kernel.macs,
            "bytes": row.kernel.bytes,
            "latency_us": None if row.rejected else row.ratio * reference_us,
        }
        for row in table.rows
    ]
    about = {"key": table.key.to_json(), "reference": table.reference, "content_hash": table.content_hash}
    columns = pyarrow.Table.from_pylist(lines)
    columns = columns.replace_schema_metadata({"bitwright": json.dumps({**about, "facts": table.facts})})
    try:
        pyarrow.parquet.write_table(columns, Path(file))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from error
    return len(lines)
