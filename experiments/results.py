"""What each stage of a run finds, as it stands in `record.json` under `stages.NAME.result`.

Everything that reads a run (report, TensorBoard, `compare`) goes through these classes:
`TrainResult.model_validate(record.stages["train"].result)`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bitwright.experiments.mixed_result import MixedResult
from bitwright.experiments.record import Figure, Gate, Part
from bitwright.experiments.slice_result import SliceResult
from bitwright.experiments.tensor_result import TensorQuality


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
    """One finding of the linter; `source` is `file:line`, `text` that line, `focus` the part of it that is meant.

    `calls` of the line say the same; `cost` is the time of all of them by the target's cost model, where it has one.
    `reason` is what the user gave for ignoring it.
    """

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
    calls: int = 1
    cost: Figure | None = None
    reason: str = ""


class LintResult(Part):
    """Findings against the target, and what the statements about this network rest on that nobody has checked.

    Attributes:
        findings: those that count.
        ignored: those that the user's own comments take back.
        notices: comments that do not do what their author meant.
        operators: how many calls were looked at; of a network that is not captured whole, those in its regions.
        macs: their multiply-accumulates.
        unverified: statements of the target's file.
    """

    findings: tuple[FindingRecord, ...]
    ignored: tuple[FindingRecord, ...] = ()
    notices: tuple[str, ...] = ()
    operators: int
    macs: Figure
    unverified: tuple[str, ...]


class LoweredLayer(Part):
    """What the target would run as one, and what the cost model says that it takes.

    Attributes:
        name: of the operation in the lowered program.
        operators: the anchor first, then what is fused behind it.
        module_path: the module that made the call.
        source: the user's `file:line`.
        engine: who runs it: an engine of the target, or the host.
        us: microseconds; None where no figure says it (an operation on the host).
        bound_by: what it waits for: `compute`, a memory, or why there is no figure.
        macs: multiply-accumulates.
        utilisation: of the engine's multipliers, 0 to 1.
    """

    name: str
    operators: tuple[str, ...]
    module_path: str
    source: str
    engine: str
    us: float | None
    bound_by: str
    macs: int
    utilisation: float | None


class LowerResult(Part):
    """The network as the target's compiler would run it.

    Attributes:
        reason: why it was not lowered, or has no times; empty when it has.
        model: the cost model's name.
        latency: of all layers that have a figure.
        peaks: of each memory, what the program keeps there at once; weights not included.
        partitions: stretches that run on one side without a break.
        layers: in the order in which they run.
        unverified: statements of the target's file that the figures lean on and nobody has checked.
        assumptions: what the model had to assume.
    """

    reason: str = ""
    model: str = ""
    latency: Figure | None = None
    peaks: dict[str, Figure] = Field(default_factory=dict)
    partitions: int = 0
    layers: tuple[LoweredLayer, ...] = ()
    unverified: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def without_time(self) -> tuple[LoweredLayer, ...]:
        """Layers without a figure; the latency is a lower bound when there are any."""
        return tuple(layer for layer in self.layers if layer.us is None)


class ExportResult(Part):
    """The artefact that the target's toolchain reads.

    Attributes:
        format: the exporter's name.
        files: their names in the stage's folder, the ONNX file first; none where it could not be written.
        reason: why.
    """

    format: str
    files: tuple[str, ...] = ()
    reason: str = ""


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
        mixed: how a format was chosen for every layer, where the recipe asks for that.
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
    mixed: MixedResult | None = None


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
        slices: the same by slice of the data, where the recipe names slices.
    """

    metric: str
    direction: Literal["higher", "lower"]
    reference: Accuracy
    quantized: tuple[Accuracy, ...]
    drop: Figure
    agreement: Figure | None
    sqnr: Figure
    slices: tuple[SliceResult, ...] = ()


class LayerRow(Part):
    """What one runtime made of one layer.

    Attributes:
        layer: its `TensorRef`, or its name in the file.
        op: operator type in the file.
        state: `int8`, `fp8`, `float`, or `folded` into another layer.
        kernel: the runtime's operators that do the work.
        precision: what they compute in, by the runtime's own trace.
        folded_into: which other layer does its work.
        file_format: code types of data and weight in the file.
        time_us: median time of its kernels.
        time_share: of the whole run, 0 to 1.
        macs: multiply-accumulates.
        mac_share: of the conv and linear ones, 0 to 1.
        reason: why it is not in int8.
    """

    layer: str
    op: str
    state: str
    kernel: str
    precision: str
    folded_into: str | None
    file_format: str
    time_us: float
    time_share: float
    macs: int
    mac_share: float
    reason: str


class RuntimeProof(Part):
    """The proof of one runtime; `low_precision_macs` counts int8, and fp8 codes where the target computes in fp8."""

    runtime: str
    version: str
    settings: dict[str, str]
    low_precision_macs: Figure
    int8_macs: Figure
    fp8_macs: Figure
    int8_time: Figure
    float_time: Figure
    conversion_time: Figure
    total: Figure
    layers: tuple[LayerRow, ...]
    warnings: tuple[str, ...]
    summary: str


class ProveResult(Part):
    """One proof a runtime; `simulated` when none of the target's runtimes is here and the file's codes were counted."""

    proofs: tuple[RuntimeProof, ...]
    simulated: bool


class SpeedRow(Part):
    """Quantized beside float in one runtime; `ratio` is quantized ÷ float over paired runs.

    `trained_latency` and `trained_ratio` are those of the network that the stage `qat` trained, where there is one.
    """

    runtime: str
    float_latency: Figure
    quantized_latency: Figure
    ratio: Figure
    trained_latency: Figure | None = None
    trained_ratio: Figure | None = None


class MeasureResult(Part):
    """Interleaved timings of both networks on each runtime.

    Attributes:
        device: the processor.
        threads: in use.
        speeds: one row a runtime; none when nothing was measured.
        load: the machine's 1-minute load before and after.
        converged: whether the ratios' intervals got narrow before the time was up.
        disturbed_rounds: rounds in which other processes were served, too.
        reason: why nothing was measured.
    """

    device: str = ""
    threads: int
    speeds: tuple[SpeedRow, ...] = ()
    load: tuple[float, float] | None = None
    converged: bool = False
    disturbed_rounds: int = 0
    reason: str = ""


class TunedResult(Part):
    """Where Q/DQ went by measured latency and accuracy together.

    Attributes:
        runtime: that it was tuned for, with its version and device.
        choice: which file is the artefact: tuned, full int8 or float.
        latencies: of each of them in the final measurement.
        ratios: time of the artefact in relation to each.
        agreement: share of samples on which the artefact decides as the float network does; none without decisions.
        agreement_int8: the same of full int8.
        sqnr: of the artefact's results against the float network's.
        sqnr_int8: the same of full int8.
        floats: layers and results that are left in float.
        sites: how many choices there were.
        tries: files that were tried.
        why: in words, where it is not the tuned one.
    """

    runtime: str
    choice: str
    latencies: dict[str, Figure]
    ratios: dict[str, Figure]
    agreement: Figure | None
    agreement_int8: Figure | None
    sqnr: Figure
    sqnr_int8: Figure
    floats: tuple[str, ...]
    sites: int
    tries: int
    why: str = ""


class PredictedGain(Part):
    """What a latency table says of int8 beside float, before anything was quantized.

    Attributes:
        table: the table's file.
        where: device, runtime and threads that it holds for.
        expectation: faster, slower or unsure.
        ratio: int8 / float latency, with its interval.
        float_latency: of the network in float.
        losers: parts of the network that lose by int8, the largest loss first.
        text: the answer in a sentence.
        reason: why there is none; empty when there is.
    """

    table: str
    where: str = ""
    expectation: str = ""
    ratio: Figure | None = None
    float_latency: Figure | None = None
    losers: tuple[str, ...] = ()
    text: str = ""
    reason: str = ""


class PredictResult(Part):
    """One answer for each table."""

    gains: tuple[PredictedGain, ...]


class VerdictResult(Part):
    """The figures in plain words, and whether the recipe's gates hold."""

    headline: str
    speed: str
    statements: tuple[str, ...]
    holds_back: tuple[str, ...]
    changes: tuple[str, ...]
    gates: tuple[Gate, ...]
    passed: bool
    text: str
