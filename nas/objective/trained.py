"""Training, and the accuracy of what is exported."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load_file, save

from bitwright.nas.objective.attempt import Attempt, Violations
from bitwright.nas.result import replace_file
from bitwright.nas.space import hash_of
from bitwright.nas.standing import rung
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize


def train_candidate(attempt: Attempt) -> Violations:
    """Trains shortly, from fresh or inherited weights; candidates that differ in formats only share what comes out."""
    trained = [dict(attempt.architecture), *([attempt.sparsity] if attempt.sparsity else [])]
    path = attempt.setup.folder / "weights" / f"{hash_of(trained if attempt.sparsity else trained[0])}.safetensors"
    if path.exists():
        attempt.model.load_state_dict(load_file(path))
        return ()
    settings: dict[str, Any] = {"sparsity": attempt.sparsity} if attempt.sparsity else {}
    if attempt.setup.rungs:
        settings["go_on"] = _Rungs(attempt)
    attempt.workload.train(attempt.model, **settings)
    if attempt.beaten():
        return ()  # what it was given up with is nobody's
    state = {name: value.detach().clone().contiguous() for name, value in attempt.model.state_dict().items()}
    replace_file(path, save(state))
    return ()


class _Rungs:
    """Scores a candidate after shares of its training, and ends it where it cannot reach the front any more."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt, self._waiting = attempt, list(attempt.setup.rungs)

    def __call__(self, done: float) -> bool:
        """Whether to train on after this share; a rung is where the training first pauses at or behind it."""
        reached = [each for each in self._waiting if each <= done]
        if not reached:
            return True
        self._waiting = self._waiting[len(reached) :]
        score = self.attempt.workload.float_accuracy(self.attempt.model)
        self.attempt.figures[rung(reached[-1])] = score
        return not self.attempt.beaten()


def score_quantized(attempt: Attempt) -> Violations:
    """Quantizes after training, exports, and scores the exported files, each as its target's runtime runs it."""
    scores = {}
    for side in attempt.sides:
        captured = capture(attempt.model, side.workload.example(attempt.model))
        quantized = quantize(captured, side.scheme, side.workload.calibration(attempt.model))
        export_onnx_qdq(quantized, side.artifact)
        scores[side.suffix] = side.workload.accuracy(attempt.model, side.artifact)
    attempt.note("accuracy", {suffix: each.value for suffix, each in scores.items()})
    for end in ("low", "high"):
        known = {suffix: value for suffix, each in scores.items() if (value := getattr(each, end)) is not None}
        attempt.note("accuracy", known if len(known) == len(scores) else {}, end=f"_{end}")
    return attempt.beyond_limits(("accuracy",))
