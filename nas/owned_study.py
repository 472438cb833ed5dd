"""A study that one driver owns: read from memory, written through to its database.

Optuna's own storage asks the database before each suggestion, and for each value of a trial: tens of queries a trial.
Who owns the study knows what is in it, so here everything is read from memory, and a trial enters the database with all
its parameters in one transaction and ends there in another. What was asked for and is not in the database when the
driver dies is asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from bitwright.nas.trial_rows import TrialRows


@dataclass
class _Changed:
    """Names of what is not in the database yet, of a trial that is."""

    params: list[str] = field(default_factory=list)
    user_attrs: list[str] = field(default_factory=list)
    system_attrs: list[str] = field(default_factory=list)


class OwnedStorage(InMemoryStorage):
    """One study, loaded whole; nobody else writes into it as long as this lives.

    What is set of a running trial is written by `write`, and at the latest with its end.

    Args:
        database: where it is kept.
        study: in there.
    """

    def __init__(self, database: RDBStorage, study: optuna.Study) -> None:
        super().__init__()
        self._database, self._database_study = database, study._study_id
        self._trials_there = TrialRows(database.engine, study._study_id)
        own = super().create_new_study(study.directions, study.study_name)
        for name, value in study.user_attrs.items():
            super().set_study_user_attr(own, name, value)
        for name, value in database.get_study_system_attrs(study._study_id).items():
            super().set_study_system_attr(own, name, value)
        self._rows: dict[int, int] = {}  # ids in the database by ids here
        self._changed: dict[int, _Changed] = {}
        for trial in database.get_all_trials(study._study_id, deepcopy=False):
            self._rows[super().create_new_trial(own, trial)] = trial._trial_id

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Here and there."""
        self._database.set_study_user_attr(self._database_study, key, value)
        super().set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Here and there."""
        self._database.set_study_system_attr(self._database_study, key, value)
        super().set_study_system_attr(study_id, key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Here, and there if it comes with something."""
        trial_id = super().create_new_trial(study_id, template_trial)
        if template_trial is not None:
            self._rows[trial_id] = self._database.create_new_trial(self._database_study, template_trial)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Here."""
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        self._changed.setdefault(trial_id, _Changed()).params.append(param_name)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Here."""
        super().set_trial_system_attr(trial_id, key, value)
        self._changed.setdefault(trial_id, _Changed()).system_attrs.append(key)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Here."""
        super().set_trial_user_attr(trial_id, key, value)
        self._changed.setdefault(trial_id, _Changed()).user_attrs.append(key)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Here and there."""
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._database.set_trial_intermediate_value(self.write(trial_id), step, intermediate_value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Here, and there with all that was set before."""
        was = self.get_trial(trial_id)
        changed = super().set_trial_state_values(trial_id, state, values)
        if changed:
            try:
                self.write(trial_id)
            except BaseException:
                self._set_trial(trial_id, was)
                raise
        return changed

    def write(self, trial_id: int) -> int:
        """Writes what is set of a trial in one transaction; returns its id in the database."""
        trial, changed = self.get_trial(trial_id), self._changed.get(trial_id, _Changed())
        if trial_id not in self._rows:
            self._rows[trial_id] = self._trials_there.insert(trial)
        else:
            self._trials_there.update(
                self._rows[trial_id], trial, params=changed.params, user_attrs=changed.user_attrs,
                system_attrs=changed.system_attrs,
            )  # fmt: skip
        self._changed.pop(trial_id, None)
        return self._rows[trial_id]
