"""What has become of the candidates that a study proposed, as samplers need to know it."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from bitwright.nas import pareto
from bitwright.nas.sampling.grid import Floats, Places
from bitwright.nas.sampling.known import Known


class Archive:
    """Candidates that were proposed before a trial.

    Trials with a higher number were asked for when this one was there already: a driver that takes over what a dead one
    left running asks again, and has to get the same answer.

    Args:
        known: what is known of candidates.
        study: holds the trials.
        asking: the trial that a candidate is looked for.

    Attributes:
        scored: places of candidates with values, each once, oldest first.
        losses: their values, [scored, objectives], less is better.
        refused: places of those that were found infeasible though the screen let them pass.
        pending: places of those that are being evaluated.
        seen: places of all that were told or are being evaluated.
    """

    def __init__(self, known: Known, study: optuna.Study, asking: FrozenTrial) -> None:
        self.known = known
        self.maximize = [each is optuna.study.StudyDirection.MAXIMIZE for each in study.directions]
        values: dict[Places, list[float]] = {}
        self.refused: list[Places] = []
        self.pending: list[Places] = []
        self.seen: set[Places] = set()
        for trial in study.get_trials(deepcopy=False):
            if trial.number >= asking.number or not trial.params.keys() >= known.grid.names:
                continue
            places = known.grid.places(trial.params)
            self.seen.add(places)
            if trial.state is TrialState.COMPLETE:
                values[places] = trial.values
            elif not trial.state.is_finished():
                self.pending.append(places)
            elif any(amount > 0 for amount in trial.constraints.values()) and not known.refuses(places):
                self.refused.append(places)
        self.scored = list(values)
        self.losses = self.turned(np.array(list(values.values())).reshape(len(values), len(self.maximize)))
        screened = (known.screened(each) for each in (*self.scored, *self.pending))
        self._networks = {each.network for each in screened if each is not None and each.network is not None}

    def turned(self, values: Floats) -> Floats:
        """Values as losses: maximised objectives turned around."""
        return np.where(self.maximize, -values, values)

    def front(self) -> list[int]:
        """Indices of the scored ones that no other beats."""
        return pareto.non_dominated(self.losses.tolist())

    def admits(self, places: Places) -> bool:
        """Whether a candidate is new, not refused by the screen, and no network that was tried."""
        if places in self.seen or self.known.refuses(places):
            return False
        found = self.known.screened(places)
        return found is None or found.network is None or found.network not in self._networks

    def earlier_best(self) -> Places | None:
        """The first admissible candidate of the earlier study's front; None when none is left."""
        places, values = self.known.earlier_scored()
        front = (places[index] for index in pareto.non_dominated(self.turned(values).tolist()))
        return next((each for each in front if self.admits(each)), None)
