"""Tables of the same key become one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitwright.hw_constraints.table.database import as_text
from bitwright.hw_constraints.table.row import KernelRow, NetworkRow
from bitwright.hw_constraints.table.store import KernelTable
from bitwright.quant.errors import InputError


def merge(tables: Sequence[KernelTable], out: Path) -> int:
    """Writes all rows into a new table; where several measured a kernel, the one with the narrowest interval stays.

    Facts of the first table win over those of the same name in the next ones.

    Returns:
        How many kernels and networks were in more than one table.

    Raises:
        InputError: the tables hold for different things, have other reference kernels, or `out` exists.
    """
    first, *others = tables
    for each in others:
        if differences := first.key.differences(each.key):
            raise InputError(
                f"{each.path}: differs from {first.path}: {'; '.join(differences)}; tables merge where device, clocks, "
                "runtime, version and threads are the same"
            )
        if each.reference != first.reference:
            raise InputError(f"{each.path}: its reference kernel is not that of {first.path}: ratios do not compare")
    if Path(out).exists():
        raise InputError(f"{out}: exists already; a merged table is a new file")
    best: dict[str, KernelRow | NetworkRow] = {}
    double: set[str] = set()
    for row in (row for table in tables for row in table.everything):
        if row.key in best:
            double.add(row.key)
        if row.key not in best or _precision(row) < _precision(best[row.key]):
            best[row.key] = row
    facts = {name: value for table in reversed(tables) for name, value in table.facts.items()}
    sessions = {each.started: each for table in tables for each in table.sessions}
    with KernelTable.writing(out, first.key, first.reference) as merged:
        merged.add(best.values(), sessions=tuple(sessions.values()), facts=facts)
    return len(double)


def _precision(row: KernelRow | NetworkRow) -> tuple[bool, float, str]:
    """Smaller is better: measured before rejected, then the narrower interval; the text settles what is equal."""
    return bool(row.rejected), 0.0 if row.rejected else row.half_width, as_text(row.to_json())
