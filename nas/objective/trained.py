"""Training, and the accuracy of what is exported."""

from __future__ import annotations

from safetensors.torch import load_file, save

from bitwright.nas.objective.attempt import Attempt, Violations
from bitwright.nas.result import replace_file
from bitwright.nas.space import hash_of
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
    if attempt.sparsity:
        attempt.workload.train(attempt.model, attempt.sparsity)
    else:
        attempt.workload.train(attempt.model)
    state = {name: value.detach().clone().contiguous() for name, value in attempt.model.state_dict().items()}
    replace_file(path, save(state))
    return ()


def score_quantized(attempt: Attempt) -> Violations:
    """Quantizes after training, exports, and scores the exported files, each as its target's runtime runs it."""
    scores = {}
    for side in attempt.sides:
        captured = capture(attempt.model, side.workload.example(attempt.model))
        quantized = quantize(captured, side.scheme, side.workload.calibration(attempt.model))
        export_onnx_qdq(quantized, side.artifact)
        scores[side.suffix] = side.workload.accuracy(attempt.model, side.artifact)
    attempt.note("accuracy", scores)
    return attempt.beyond_limits(("accuracy",))
