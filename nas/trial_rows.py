"""Trials as rows of Optuna's tables: a trial's beginning and its end are one transaction each.

The tables are read from the database itself; Optuna has refused other versions of its schema by then, and reads back
what is written here like its own (the tests do).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial

_TABLES = ("trials", "trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes")


class TrialRows:
    """The trials of one study in its database.

    Args:
        engine: of the database.
        study: its id there.
    """

    def __init__(self, engine: sqlalchemy.Engine, study: int) -> None:
        found = sqlalchemy.MetaData()
        found.reflect(engine, only=_TABLES)
        self._tables, self._engine, self._study = found.tables, engine, study

    def insert(self, trial: FrozenTrial) -> int:
        """Writes a trial with all that is known of it; returns its id in the database."""
        columns = {"number": trial.number, "study_id": self._study, "datetime_start": trial.datetime_start}
        with self._engine.begin() as connection:
            inserted = connection.execute(self._tables["trials"].insert().values(**columns, **_end(trial)))
            assert inserted.inserted_primary_key is not None
            row = int(inserted.inserted_primary_key[0])
            self._insert_all(connection, "trial_params", row, _params(trial, trial.params))
            self._insert_all(connection, "trial_user_attributes", row, _attributes(trial.user_attrs))
            self._insert_all(connection, "trial_system_attributes", row, _attributes(trial.system_attrs))
            self._insert_all(connection, "trial_values", row, _values(trial))
        return row

    def update(
        self,
        row: int,
        trial: FrozenTrial,
        *,
        params: Collection[str],
        user_attrs: Collection[str],
        system_attrs: Collection[str],
    ) -> None:
        """Writes what has changed: these parameters and attributes, the state, and the scores of a finished trial."""
        trials = self._tables["trials"]
        with self._engine.begin() as connection:
            self._insert_all(connection, "trial_params", row, _params(trial, params))
            self._replace(connection, "trial_user_attributes", row, {key: trial.user_attrs[key] for key in user_attrs})
            system = {key: trial.system_attrs[key] for key in system_attrs}
            self._replace(connection, "trial_system_attributes", row, system)
            self._insert_all(connection, "trial_values", row, _values(trial))
            connection.execute(trials.update().where(trials.c.trial_id == row).values(**_end(trial)))

    def _replace(self, connection: sqlalchemy.Connection, name: str, row: int, attributes: Mapping[str, Any]) -> None:
        if attributes:
            table = self._tables[name]
            connection.execute(table.delete().where(table.c.trial_id == row, table.c.key.in_(list(attributes))))
            self._insert_all(connection, name, row, _attributes(attributes))

    def _insert_all(
        self, connection: sqlalchemy.Connection, name: str, row: int, columns: Sequence[Mapping[str, Any]]
    ) -> None:
        if columns:
            connection.execute(self._tables[name].insert(), [{"trial_id": row, **each} for each in columns])


def _params(trial: FrozenTrial, names: Collection[str]) -> list[dict[str, Any]]:
    return [
        {
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(trial.params[name]),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name in names
    ]


def _attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def _values(trial: FrozenTrial) -> list[dict[str, Any]]:
    """The scores of a finished trial, which are finite: no result has others."""
    return [
        {"objective": objective, "value": value, "value_type": "FINITE"}
        for objective, value in enumerate(trial.values or ())
    ]


def _end(trial: FrozenTrial) -> dict[str, Any]:
    return {"state": trial.state.name, "datetime_complete": trial.datetime_complete}
