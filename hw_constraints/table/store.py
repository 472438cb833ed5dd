"""A latency table: rows by kernel, what they hold for, and the facts of the runtime that go with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.table.database import Database, as_text
from bitwright.hw_constraints.table.key import TableKey
from bitwright.hw_constraints.table.lock import sole_writer
from bitwright.hw_constraints.table.row import KernelRow, NetworkRow
from bitwright.hw_constraints.table.session import Session
from bitwright.quant.errors import InputError


class KernelTable:
    """A table in memory, and the file that it came from."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.path = database.path
        try:
            self.key = TableKey.from_json(json.loads(database.head["key"]))
            self.reference: Mapping[str, Any] = json.loads(database.head["reference"])
            self._rows = {key: KernelRow.from_json(each) for key, each in self._entries("kernels").items()}
            self._networks = {key: NetworkRow.from_json(each) for key, each in self._entries("networks").items()}
            _ = self.sessions, self.facts
        except (LookupError, ValueError, TypeError, AttributeError) as error:  # somebody else wrote it, digests and all
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(
                f"{self.path}: is not as Bitwright writes tables ({what}): take it from a copy or measure it anew"
            ) from error

    @classmethod
    def load(cls, path: Path, *, key: TableKey | None = None) -> KernelTable:
        """Reads a table; the file is closed again.

        Args:
            path: the file.
            key: what the table has to hold for; None takes any.

        Raises:
            InputError: there is no such table, it is damaged, or it holds for something else.
        """
        database = Database.open(Path(path))
        try:
            table = cls(database)
        finally:
            database.close()
        if key is not None:
            table.require(key)
        return table

    @classmethod
    @contextmanager
    def writing(cls, path: Path, key: TableKey, reference: Mapping[str, Any]) -> Iterator[KernelTable]:
        """The table to measure into: goes on with the file, or makes it; no other process writes meanwhile.

        Raises:
            InputError: another process writes, the file is damaged, or holds for something else.
        """
        path = Path(path)
        try:
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path}: its folder cannot be made ({error.strerror}); name another place") from error
        with sole_writer(path):
            if path.exists():
                database = Database.open(path, write=True)
            else:
                database = Database.create(path, {"key": as_text(key.to_json()), "reference": as_text(reference)})
            try:
                table = cls(database)
                table.require(key)
                if table.reference != reference:
                    raise InputError(f"{path}: has another reference kernel: measure into another file")
                yield table
            finally:
                database.close()

    def require(self, key: TableKey) -> None:
        """Refuses a table whose latencies would not compare.

        Raises:
            InputError: device, clocks, runtime, version or threads differ; the message says in what.
        """
        if differences := self.key.differences(key):
            raise InputError(
                f"{self.path}: is a table of {self.key}, which differs: {'; '.join(differences)}. "
                "Measure another one for this: bitwright measure kernels --out ANOTHER"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows or key in self._networks

    def get(self, kernel: Kernel) -> KernelRow | None:
        """The kernel's row; None when it was never tried."""
        return self._rows.get(kernel.key)

    def latency_us(self, kernel: Kernel) -> float | None:
        """The kernel's measured latency; None when it was never tried or was rejected."""
        row = self.get(kernel)
        return None if row is None or row.rejected else row.ratio * self.reference_us

    @property
    def rows(self) -> tuple[KernelRow, ...]:
        """All rows, by the kernels' keys."""
        return tuple(self._rows[key] for key in sorted(self._rows))

    @property
    def measured(self) -> tuple[KernelRow, ...]:
        """The rows of kernels that the runtime runs."""
        return tuple(row for row in self.rows if not row.rejected)

    @property
    def networks(self) -> tuple[NetworkRow, ...]:
        """Whole networks, by name."""
        return tuple(self._networks[key] for key in sorted(self._networks))

    @property
    def everything(self) -> Iterator[KernelRow | NetworkRow]:
        """Rows of either kind."""
        yield from self.rows
        yield from self.networks

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Its sessions in order of time."""
        return tuple(Session.from_json(each) for _, each in sorted(self._entries("sessions").items()))

    @property
    def reference_us(self) -> float:
        """The reference kernel's latency: median over the sessions. A ratio times this is a latency in µs.

        Raises:
            InputError: nothing has been measured yet.
        """
        sessions = self.sessions
        if not sessions:
            raise InputError(f"{self.path}: nothing has been measured into it yet")
        return median(each.reference_us for each in sessions)

    @property
    def facts(self) -> dict[str, Any]:
        """What else is known of the runtime here, such as its overheads, by name."""
        return self._entries("facts")

    @property
    def content_hash(self) -> str:
        """SHA-256 of all that it says; the order in which rows came does not matter."""
        return self._database.content_hash()

    def add(
        self,
        rows: Iterable[KernelRow | NetworkRow] = (),
        *,
        sessions: Sequence[Session] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes rows, sessions and facts, all or nothing; those with a known key replace the old ones.

        Raises:
            InputError: the disk is full, or the file cannot be written.
        """
        rows = tuple(rows)
        kernels = {row.key: row for row in rows if isinstance(row, KernelRow)}
        networks = {row.key: row for row in rows if isinstance(row, NetworkRow)}
        self._database.write(
            {
                "kernels": {key: as_text(row.to_json()) for key, row in kernels.items()},
                "networks": {key: as_text(row.to_json()) for key, row in networks.items()},
                "sessions": {each.started: as_text(each.to_json()) for each in sessions},
                "facts": {name: as_text(value) for name, value in (facts or {}).items()},
            }
        )
        self._rows.update(kernels)
        self._networks.update(networks)

    def _entries(self, kind: str) -> dict[str, Any]:
        return {name: json.loads(text) for name, text in self._database.entries[kind].items()}
