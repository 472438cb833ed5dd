"""What a verdict rests on: measured figures, in small frozen records of their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"interval [{self.low}, {self.high}] does not contain its estimate {self.value}")

    def contains(self, value: float) -> bool:
        """Whether `value` is within the interval."""
        return self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class SpeedComparison:
    """Latency of the quantized network beside the float one, measured interleaved.

    Attributes:
        runtime: which runtime, with its version.
        device: on which processor.
        float_us: median of the float network, microseconds.
        quantized_us: median of the quantized network, microseconds.
        ratio: quantized ÷ float over paired runs.
        pairs: how many pairs.
    """

    runtime: str
    device: str
    float_us: float
    quantized_us: float
    ratio: Interval
    pairs: int


@dataclass(frozen=True, kw_only=True)
class ModelledLatency:
    """What the target's cost model says of the quantized network.

    Attributes:
        us: microseconds.
        model: the cost model's name.
        is_whole: whether every operation has a figure; else the latency is a lower bound.
    """

    us: float
    model: str
    is_whole: bool

    def __str__(self) -> str:
        return f"{'' if self.is_whole else 'at least '}{self.us / 1e3:.3f} ms by the cost model {self.model!r}"


@dataclass(frozen=True, kw_only=True)
class MetricComparison:
    """A quality metric of both networks on the same samples.

    Attributes:
        name: what the user calls it.
        float_value: of the float network.
        quantized_value: of the quantized network.
        higher_is_better: its direction.
        difference: quantized − float, paired over the samples; None when only totals are known.
        unit: behind the numbers (` %`).
    """

    name: str
    float_value: float
    quantized_value: float
    higher_is_better: bool
    difference: Interval | None = None
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often both networks decide alike, and the distance of their outputs.

    Attributes:
        share: of the samples with the same decision, 0 to 1.
        samples: how many samples.
        sqnr_db: signal to quantization noise of the outputs, dB; None when unknown.
    """

    share: float
    samples: int
    sqnr_db: float | None = None


@dataclass(frozen=True, kw_only=True)
class FloatLayer:
    """A layer that the proof found outside low precision.

    Attributes:
        layer: its name in the user's model.
        time_share: of the whole run, 0 to 1; None when the runtime gives no times.
        reason: why, as the proof derived it.
        suggestion: what would change that; empty when nothing is known.
    """

    layer: str
    time_share: float | None
    reason: str
    suggestion: str = ""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What the runtime really did.

    Attributes:
        low_precision_macs: share of the multiply-accumulates in low precision, 0 to 1.
        executed: whether a runtime ran them so; else the share is counted from the codes in the file.
        conversion_share: share of the time spent on quantizing, dequantizing and reordering; None when unknown.
        float_layers: the layers outside low precision.
    """

    low_precision_macs: float
    executed: bool = True
    conversion_share: float | None = None
    float_layers: tuple[FloatLayer, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A limit that the user set.

    Attributes:
        name: of the figure.
        value: what was measured; None when it was not.
        at_least: the lower limit, if any.
        at_most: the upper limit, if any.
    """

    name: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"gate {self.name!r} has neither at_least nor at_most")

    @property
    def passed(self) -> bool:
        """Whether the figure was measured and keeps the limit; NaN keeps none."""
        if self.value is None:
            return False
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    def __str__(self) -> str:
        limits = [
            f"{sign} {limit:g}" for sign, limit in ((">=", self.at_least), ("<=", self.at_most)) if limit is not None
        ]
        value = "not measured" if self.value is None else f"{self.value:.4g}"
        return f"{self.name} = {value}, wanted {' and '.join(limits)}: {'passed' if self.passed else 'FAILED'}"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All that a verdict rests on; what is None was not measured.

    Attributes:
        network: its name.
        target: the accelerator's id.
        speed: one comparison for each runtime.
        modelled: the latency on the target by its cost model.
        metrics: quality metrics.
        agreement: with the float network.
        float_bytes: size of the float artefact.
        quantized_bytes: size of the quantized artefact.
        execution: the proof.
        gates: the user's limits.
        unverified: statements of the target file that were taken on trust.
    """

    network: str
    target: str
    speed: tuple[SpeedComparison, ...] = ()
    modelled: ModelledLatency | None = None
    metrics: tuple[MetricComparison, ...] = ()
    agreement: Agreement | None = None
    float_bytes: int | None = None
    quantized_bytes: int | None = None
    execution: Execution | None = None
    gates: tuple[Gate, ...] = ()
    unverified: tuple[str, ...] = ()
