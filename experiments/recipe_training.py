"""A recipe's sections about training: in float, and on in low precision."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from bitwright.experiments.recipe_section import Count, Section, Share
from bitwright.quant.errors import InputError


class Train(Section):
    """Trains the network in float first: cross-entropy, AdamW, one-cycle learning rate."""

    epochs: Count = 10
    batch: Count = 64
    lr: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    label_smoothing: Share = 0.0


class FloatTrain(Train):
    """A recipe's own training in float.

    Attributes:
        sparsity: patterns of zeros (`2:4`, or blocks as `16x1`) that weights keep from the first step on, by the path
            of a module; see `bitwright.qat.sparsity.Sparsity`.
    """

    sparsity: dict[str, str] = Field(default_factory=dict)

    @field_validator("sparsity")
    @classmethod
    def _are_patterns(cls, sparsity: dict[str, str]) -> dict[str, str]:
        from bitwright.qat.sparsity.patterns import Pattern

        for each in sparsity.values():
            try:
                Pattern.parse(each)
            except InputError as error:
                raise ValueError(str(error)) from error
        return sparsity


class Spec(Section):
    """Replaces parts of how the target quantizes a tensor; what is left out stays the target's."""

    format: str | None = None
    symmetric: bool | None = None
    granularity: Literal["per_tensor", "per_channel", "per_block"] | None = None
    block_size: int | None = None
    narrow_range: bool | None = None
    scale_kind: Literal["float32", "power_of_two", "e8m0", "float8_e4m3"] | None = None
    dynamic: bool | None = None
    observer: str | None = None
    observer_arguments: dict[str, Any] | None = None


class QATStage(Section):
    """Wider formats until a step; see `bitwright.qat.Stage`."""

    until: Count
    weights: str | None = None
    activations: str | None = None


class QATRamp(Section):
    """From one value to another between two steps; see `bitwright.qat.Ramp`."""

    first: float
    last: float
    begin: Annotated[int, Field(ge=0)] = 0
    end: Count = 1


class QATFreezing(Section):
    """Weights that oscillate stop; see `bitwright.qat.Freezing`."""

    threshold: QATRamp
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.01


class QATScheduleSection(Section):
    """What happens at which step of the training; see `bitwright.qat.QATSchedule`, whose names these are."""

    freeze_batch_norm_after: Annotated[int, Field(ge=0)] | None = 0
    freeze_observers_after: Annotated[int, Field(ge=0)] | None = None
    freeze_scales_after: Annotated[int, Field(ge=0)] | None = None
    scale_lr: Annotated[float, Field(ge=0, lt=1)] | None = None
    stages: tuple[QATStage, ...] = ()
    dampening: QATRamp | None = None
    freezing: QATFreezing | None = None
    gradient_scaling: Share = 0.0
    stochastic_rounding_until: Annotated[int, Field(ge=0)] = 0


class QATSparsity(Section):
    """Weights keep a pattern of zeros while they train in low precision; see `bitwright.qat.sparsity.Sparsity`.

    Attributes:
        pattern: `2:4` (two of four neighbouring inputs stay), or blocks as `16x1`: outputs by inputs.
        share: of blocks that are zero at the end; 2:4 says it already.
        begin: the step at which zeros begin.
        end: the step at which the pattern is complete.
        freeze_after: the step after which the choice of weights stays.
        permute: whether input channels first change places, so that N:M drops less.
        skip: modules whose weights stay dense.
    """

    pattern: str = "2:4"
    share: float | None = None
    begin: Annotated[int, Field(ge=0)] = 0
    end: Annotated[int, Field(ge=0)] = 0
    freeze_after: Annotated[int, Field(ge=0)] | None = None
    permute: bool = True
    skip: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_a_pattern(self) -> Self:
        from bitwright.qat.sparsity.patterns import Pattern

        try:
            Pattern.parse(self.pattern, share=self.share)
        except InputError as error:
            raise ValueError(str(error)) from error
        if self.begin > self.end:
            raise ValueError(f"begin = {self.begin}, end = {self.end}; zeros begin before the pattern is complete")
        return self


class QATPrune(Section):
    """Channels leave in a training in float, before the one in low precision; see `bitwright.qat.sparsity.Pruning`.

    Attributes:
        target: what the cost is to become, as a share of what it is.
        cost: latency by the first of `predict.tables`, else by the target's cost model; or MACs.
        epochs: over the training data, in float.
        lr: its largest learning rate.
        recover: the share of its steps that comes after the last channel has left.
        every: steps between removals.
        importance: of a channel: the change of the loss, the length of its weights, or its batch norm's factor.
        multiple: channels stay in multiples of it, as kernels like them.
        skip: groups that stay, by their names.
    """

    target: Annotated[float, Field(gt=0, lt=1)]
    cost: Literal["latency", "macs"] = "latency"
    epochs: Count = 3
    lr: Annotated[float, Field(gt=0)] = 1e-3
    recover: Annotated[float, Field(ge=0, lt=1)] = 0.5
    every: Count = 20
    importance: Literal["taylor", "norm", "gamma"] = "taylor"
    multiple: Count = 8
    skip: tuple[str, ...] = ()


class QATMixedBudget(Section):
    """What the network may cost: a share of the way from all in the first format (0) to the least (1), or `1.5 MB`.

    One of the two is given. Latency is that of the first of `predict.tables`, else of the target's cost model.
    """

    latency: float | str | None = None
    size: float | str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [value for value in (self.latency, self.size) if value is not None]
        if len(given) != 1:
            raise ValueError("give one of latency and size")
        if isinstance(given[0], float) and not 0 <= given[0] <= 1:
            raise ValueError("a number is a share of the way (0 to 1); an amount has its unit")
        return self


class QATMixed(Section):
    """A format for every layer, learned by gradient before the training; see `bitwright.qat.FormatSearch`.

    Attributes:
        budget: of latency or of size.
        formats: what a layer may get: int8, int4, int16, fp8, of weights and results alike where the target has them.
        epochs: over the training data, weights and formats together; the training then begins with the float weights.
        lr: the largest learning rate of the weights.
        format_lr: that of the formats.
    """

    budget: QATMixedBudget
    formats: Annotated[tuple[str, ...], Field(min_length=2)] = ("int8", "int4")
    epochs: Count = 2
    lr: Annotated[float, Field(gt=0)] = 5e-4
    format_lr: Annotated[float, Field(gt=0)] = 0.03


class QAT(Section):
    """Trains on with the plan of the quantization in place; compared with PTQ at the same formats.

    Attributes:
        epochs: over the training data.
        batch: samples a step.
        lr: the largest learning rate.
        distill: the share of the loss that follows the float network's outputs; the rest follows the labels.
        features: modules whose results follow the float network's, too; all terms then weigh themselves.
        start: where training begins: at the float weights, or where quantizing after training ended.
        weights: formats in place of the target's.
        activations: likewise.
        schedule: what happens when.
        sparsity: zeros that the weights keep.
        prune: channels that leave first.
        mixed: formats that are learned layer by layer, behind that.
        look_every: steps between two looks for TensorBoard.
    """

    epochs: Count = 3
    batch: Count = 64
    lr: Annotated[float, Field(gt=0)] = 5e-4
    distill: Annotated[float, Field(ge=0, le=1)] = 1.0
    features: tuple[str, ...] = ()
    start: Literal["float", "quantized"] = "float"
    weights: Spec = Spec()
    activations: Spec = Spec()
    schedule: QATScheduleSection = QATScheduleSection()
    sparsity: QATSparsity | None = None
    prune: QATPrune | None = None
    mixed: QATMixed | None = None
    look_every: Count = 25

    @model_validator(mode="after")
    def _starts_on_frozen_norms(self) -> Self:
        if self.start == "quantized" and self.schedule.freeze_batch_norm_after != 0:
            raise ValueError("start = 'quantized' replaces batch norms; schedule.freeze_batch_norm_after must be 0")
        if self.start == "quantized" and self.sparsity is not None:
            raise ValueError("start = 'quantized' has rounded weights that sparsity would drop; start must be 'float'")
        return self
