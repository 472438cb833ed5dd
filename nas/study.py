"""The Optuna study of a search: what is written into it, and how it is taken up again after any death."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from bitwright.nas.owned_study import OwnedStorage
from bitwright.nas.result import Outcome, Result
from bitwright.nas.space import Candidate
from bitwright.nas.storage import StudyPlace
from bitwright.quant.errors import InputError

_DEFINITION, _FOLDER, _CANDIDATE, _RESULT, _ATTEMPT = "definition", "folder", "candidate", "result", "attempt"


@contextmanager
def opened(
    place: StudyPlace, *, names: Sequence[str], maximize: Sequence[bool], definition: Mapping[str, Any], folder: Path
) -> Iterator[optuna.Study]:
    """Opens the study at its place, or begins it.

    Args:
        place: its storage and name.
        names: of the objectives.
        maximize: the direction of each.
        definition: JSON values that scores depend on; a study of another definition is not continued.
        folder: of the search, where the study's results are.

    Raises:
        InputError: it was begun with another definition (the difference is named), its results are in another folder,
            or the file is no study.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name=place.name,
            storage=place.storage,
            directions=["maximize" if up else "minimize" for up in maximize],
            load_if_exists=True,
        )
        _check_definition(study, place.shown, definition)
        _check_folder(study, place.shown, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(names))
        yield optuna.load_study(study_name=place.name, storage=OwnedStorage(place.storage, study))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _check_definition(study: optuna.Study, shown: str, definition: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(definition))
    before = study.user_attrs.get(_DEFINITION)
    if before is None:
        study.set_user_attr(_DEFINITION, now)
    elif before != now:
        raise InputError(
            f"{shown}: this study was begun with something else: {'; '.join(_differences(before, now))}. "
            "Take the change back, name another folder, or keep this study aside and begin anew with --fork"
        )


def _check_folder(study: optuna.Study, shown: str, folder: Path) -> None:
    """Two searches of one name, alike in everything, would each lack the other's results."""
    before = study.user_attrs.get(_FOLDER)
    if before is None or (folder / "results").exists():
        if before != str(folder):
            study.set_user_attr(_FOLDER, str(folder))
    elif before != str(folder) and study.get_trials(deepcopy=False):
        raise InputError(
            f"{shown}: the results of this study are in {before}, and this search is in {folder}; give this search "
            "another name, or go on in that folder"
        )


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path} was {json.dumps(before)} and is {json.dumps(now)}"


def tell(study: optuna.Study, trial: optuna.Trial, result: Result, objectives: Sequence[str]) -> None:
    """Writes a result into the study: scores, or constraints without scores, or a failure; with its reasons."""
    for each in result.violations:
        trial.set_constraint(each.constraint, each.amount)
    trial.set_user_attr(_RESULT, result.model_dump(mode="json", exclude={"key", "values", "network"}))
    if result.outcome is Outcome.SCORED:
        study.tell(trial, [result.figures[name] for name in objectives])
    else:
        # No scores are made up for an infeasible one: PRUNED with constraints is what samplers learn from. One that
        # was given up is PRUNED without.
        study.tell(trial, state=TrialState.FAIL if result.outcome is Outcome.FAILED else TrialState.PRUNED)


def note_candidate(trial: optuna.Trial, candidate: Candidate) -> None:
    """Notes with the trial what it stands for; `keep` writes it."""
    trial.set_user_attr(_CANDIDATE, {"key": candidate.key, **candidate.values})


def begin_attempt(trial: optuna.Trial) -> int:
    """Counts the evaluations of a trial that were begun, and returns the count with this one; `keep` writes it."""
    attempt = int(trial.user_attrs.get(_ATTEMPT, 0)) + 1
    trial.set_user_attr(_ATTEMPT, attempt)
    return attempt


def keep(trial: optuna.Trial) -> None:
    """Writes a running trial into the study's database: from here on a killed driver's successor takes it over."""
    storage = trial.storage
    assert isinstance(storage, OwnedStorage)
    storage.write(trial._trial_id)


def told(study: optuna.Study) -> list[tuple[int, str]]:
    """Trial number and candidate of everything that was told, oldest first; interrupted trials do not count."""
    trials = study.get_trials(deepcopy=False)
    return [
        (each.number, each.user_attrs[_CANDIDATE]["key"])
        for each in trials
        if each.state.is_finished() and _RESULT in each.user_attrs
    ]


def running(study: optuna.Study) -> list[FrozenTrial]:
    """What a dead driver left running, oldest first: one owner at a time means that nobody else runs them."""
    return sorted(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)), key=lambda each: each.number)


def adopted(study: optuna.Study, frozen: FrozenTrial) -> optuna.Trial:
    """A running trial that nobody holds; suggests what it suggested before."""
    return optuna.Trial(study, frozen._trial_id)  # Optuna has no public way to it
