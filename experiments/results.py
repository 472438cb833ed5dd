"""What each stage of a run finds, as it stands in `record.json` under `stages.NAME.result`.

Everything that reads a run (report, TensorBoard, `compare`) goes through these classes:
`TrainResult.model_validate(record.stages["train"].result)`.
"""

from __future__ import annotations

from typing import Literal

from bitwright.experiments.record import Figure, Gate, Part


class Epoch(Part):
    """One pass over the training data: mean loss, the learning rate at its end, seconds."""

    loss: float
    lr: float
    seconds: float


class TrainResult(Part):
    """`weights.safetensors` holds the trained network."""

    parameters: int
    epochs: tuple[Epoch, ...]
    metric: str
    final: Figure


class FindingRecord(Part):
    """One finding of the linter; `source` is `file:line`, `text` that line, `focus` the part of it that is meant."""

    rule: str
    severity: Literal["error", "warning", "info"]
    node: str
    module_path: str
    found: str
    allowed: str
    suggestion: str
    source: str = ""
    text: str = ""
    focus: str = ""


class LintResult(Part):
    """Findings against the target, and what of the target's file nobody has checked."""

    findings: tuple[FindingRecord, ...]
    operators: int
    macs: Figure
    unverified: tuple[str, ...]


class TensorQuality(Part):
    """How well one tensor survives quantization.

    Attributes:
        tensor: its `TensorRef`.
        module_path: the module that makes it.
        op: the operator that makes it; empty for inputs and weights.
        kind: `activation` or `weight`.
        format: its number format.
        sqnr: signal to quantization noise. Weights: of the rounding alone. Activations: against the float network,
            with everything before it quantized, too.
        low: the smallest real value that is not clipped (per channel: the smallest of all).
        high: the largest.
        counts: a histogram of the float values over the calibration data.
        edges: its bin edges, one more than counts.
    """

    tensor: str
    module_path: str
    op: str
    kind: Literal["activation", "weight"]
    format: str
    sqnr: Figure
    low: float
    high: float
    counts: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()


class QuantizeResult(Part):
    """`float.onnx` and `quantized.onnx` are the artefacts; `provenance.json` joins their nodes to the user's layers.

    Attributes:
        scheme: what was asked for, in words (`uint8 × int8 per channel`).
        artifact: the exporter's name, as the target asks for it.
        samples: calibration samples used.
        tensors: quality by tensor, in the order of the network.
        kept_float: operators that stay in float, with the reason.
        float_bytes: size of `float.onnx`.
        quantized_bytes: size of `quantized.onnx`.
        calibrate_seconds: calibration and export, wall time.
        notes: what happened on the way (skipped pictures, formats that the target's kernels only store).
    """

    scheme: str
    artifact: str
    samples: int
    tensors: tuple[TensorQuality, ...]
    kept_float: dict[str, str]
    float_bytes: Figure
    quantized_bytes: Figure
    calibrate_seconds: Figure
    notes: tuple[str, ...] = ()


class Accuracy(Part):
    """One network on one engine: every metric by its name."""

    engine: str
    metrics: dict[str, Figure]


class EvaluateResult(Part):
    """Float against quantized on the evaluation data.

    Attributes:
        metric: the one that counts.
        direction: whether more of it is better.
        reference: the float network.
        quantized: the artefact, on each runtime that runs it.
        drop: how much worse the quantized network is (first runtime), in the metric's unit; negative when better.
        agreement: on how many samples (or pixels) both decide alike; None for a user's own metric.
        sqnr: of the network's outputs against float.
        gates: accuracy gates.
    """

    metric: str
    direction: Literal["higher", "lower"]
    reference: Accuracy
    quantized: tuple[Accuracy, ...]
    drop: Figure
    agreement: Figure | None
    sqnr: Figure
    gates: tuple[Gate, ...] = ()
