"""The recipe: one YAML file that says what to fit to which silicon, and what must hold at the end.

Frozen models, unknown keys refused; `load_recipe` turns every mistake into `file:line: key = value; what is allowed`.
Nothing here imports torch or runs a user's code.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from bitwright.experiments.recipe_data import Calibrate, DataSection
from bitwright.experiments.recipe_search import Search
from bitwright.experiments.recipe_section import Chosen, Count, Entry, Section, Share
from bitwright.experiments.recipe_training import QAT, FloatTrain, Spec

MAX_SEED = 2**63 - 1  # what torch.manual_seed takes
AGREEMENT = "agreement"  # the metric that needs no labels: the share of the float network's decisions that are kept
METRICS = ("top1", "miou", AGREEMENT)


class ModelSection(Chosen):
    """Which network. `weights`: a .safetensors or .pt file (loaded without running code from it)."""

    weights: str | None = None


class ExampleInputs(Section):
    """What the network is captured and measured with: `batch` rows of the loader, or what `entry` returns."""

    batch: Count = 1
    entry: Entry | None = None


class AccuracyGate(Section):
    """Fails the run when the quantized network is too far from the float one, or not good enough.

    Attributes:
        max_drop: the largest loss against the float network, in the metric's own unit.
        bound: the worst acceptable value (a minimum when higher is better, else a maximum).
        min_agreement: the smallest share of samples on which both networks decide alike, 0 to 1.
        min_sqnr_db: the least signal to noise ratio of the results against the float network's.
    """

    max_drop: Annotated[float, Field(ge=0)] | None = None
    bound: float | None = None
    min_agreement: Share | None = None
    min_sqnr_db: float | None = None


class Evaluate(Section):
    """How good the network is: a built-in metric, or `entry(model, loader) -> {metric: value}`.

    Attributes:
        metric: which of the metrics counts for the gate; for an entry, one of the keys it returns. `agreement` needs
            no labels: the float network's decisions are the truth.
        direction: whether more is better; built-in metrics know.
        samples: evaluate on the first so many only.
        held_out: leave out what calibrated, where the data name the same samples for both.
    """

    entry: Entry | None = None
    metric: str = "top1"
    direction: Literal["higher", "lower"] = "higher"
    samples: Count | None = None
    held_out: bool = False
    gate: AccuracyGate = AccuracyGate()


class QuantizeOverride(Section):
    """An exception: for modules by a glob over their paths, or for an operator type."""

    module: str = ""
    operator: str = ""
    keep_float: bool = False
    weights: Spec | None = None
    activations: Spec | None = None

    @model_validator(mode="after")
    def _one_selector(self) -> Self:
        if bool(self.module) == bool(self.operator):
            raise ValueError("needs either module (a glob such as features.0.*) or operator (such as linear)")
        return self


class MixedBudget(Section):
    """What the network may cost: a share of the way from float (0) to the scheme's own formats (1), or `3.2 ms`."""

    latency: float | str | None = None
    size: float | str | None = None
    energy: float | str | None = None

    @field_validator("latency", "size", "energy")
    @classmethod
    def _is_a_share(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and not 0 <= value <= 1:
            raise ValueError("a number is a share of the way from float (0) to the formats (1); an amount has its unit")
        return value


class Mixed(Section):
    """A format for every layer: the best accuracy within a budget, or the least cost that keeps `min_sqnr_db`.

    Attributes:
        budget: of latency by the first of `predict.tables`, else by the target's cost model; size; energy.
        min_sqnr_db: of the results against the float network.
        minimise: what is made small when `min_sqnr_db` is given.
        formats: what a layer may get: int8, float32, int4, int16, fp8.
        samples: that noise is measured on.
        front: how many budgets the picture's front is swept with; 0 for none.
    """

    budget: MixedBudget = MixedBudget()
    min_sqnr_db: float | None = None
    minimise: Literal["latency", "size", "energy"] = "latency"
    formats: Annotated[tuple[str, ...], Field(min_length=2)] = ("int8", "float32")
    samples: Count = 8
    front: Annotated[int, Field(ge=0)] = 12

    @model_validator(mode="after")
    def _has_a_goal(self) -> Self:
        if self.min_sqnr_db is None and self.budget == MixedBudget():
            raise ValueError("needs a budget (latency, size or energy) or min_sqnr_db")
        return self


class Quantize(Section):
    """Post-training quantization. The later of two overrides that select a layer wins.

    `prepare`: rewrites before anything is calibrated (smoothquant, …), in their order. `rounding`: how weights are
    rounded in view of their inputs, without it to nearest: `nearest` refits biases alone, `gptq` weights and biases,
    `seqmse` chooses scales, too, `quantease` rounds again until nothing falls, `adaround` learns each layer, `brecq`
    and `qdrop` each block. From the cheapest to the dearest; layers that stay at nearest are named with the reason.
    """

    weights: Spec = Spec()
    activations: Spec = Spec()
    overrides: tuple[QuantizeOverride, ...] = ()
    mixed: Mixed | None = None
    bias_correction: bool = True
    equalization: bool | Literal["auto"] = False
    prepare: tuple[str, ...] = ()
    rounding: str | None = None


class Export(Section):
    """The artefact for the target's own toolchain, in the target's format unless another is named.

    `settings` are the exporter's own, such as `version` of `encodings_json`.
    """

    format: str | None = None
    settings: dict[str, str] = Field(default_factory=dict)


class LowerGate(Section):
    """Fails the run when the target's cost model says more than this, or does not know every operation."""

    max_ms: Annotated[float, Field(gt=0)] | None = None


class Lower(Section):
    """The network as the target's own compiler would run it, with the times of its cost model."""

    gate: LowerGate = LowerGate()


class Predict(Section):
    """Says before anything is quantized whether int8 will be faster, by tables that `measure kernels` has made."""

    tables: tuple[str, ...] = ()


class ProveGate(Section):
    """Fails the run when less than this share of conv and linear MACs is proven in low precision."""

    min_mac_share: Share | None = None


class Prove(Section):
    """Asks each runtime, layer by layer, what it really ran. `None`: the runtimes that the target names."""

    runtimes: tuple[str, ...] | None = None
    gate: ProveGate = ProveGate()


class ParityGate(Section):
    """Fails the run when more layers than this compute something else than the network that they were made from."""

    max_breaks: Annotated[int, Field(ge=0)] | None = 0


class Parity(Section):
    """Compares every form of the network with the one that it was made from, layer by layer, on so many samples."""

    samples: Count = 2
    gate: ParityGate = ParityGate()


class MeasureGate(Section):
    """Fails the run when quantized ÷ float latency is above this (the upper end of its 95 % interval)."""

    max_ratio: Annotated[float, Field(gt=0)] | None = None


class Measure(Section):
    """Times float and quantized, interleaved: at least `rounds` undisturbed rounds, at most so many seconds.

    `on` is the address of a device (ssh://user@host:port/folder); without it this machine is measured.
    """

    on: str | None = None
    runtimes: tuple[str, ...] | None = None
    threads: Count = 1
    rounds: Count = 20
    seconds: Annotated[float, Field(gt=0)] = 30.0
    gate: MeasureGate = MeasureGate()

    @field_validator("on")
    @classmethod
    def _is_address(cls, text: str | None) -> str | None:
        if text is not None:
            from bitwright.hw_constraints.transport.address import parse_address

            parse_address(text)
        return text


class Autotune(Section):
    """Chooses where Q/DQ go by measured latency and accuracy together: `autotune/tuned.onnx`, never slower.

    `table`: latencies of kernels (`measure kernels`), to try promising files first.
    """

    runtime: str | None = None
    tries: Count = 40
    minutes: Annotated[float, Field(gt=0)] = 10.0
    threads: Count = 1
    table: str | None = None


class Report(Section):
    """What is written for the eye."""

    html: bool = True
    tensorboard: bool = True


class Recipe(Section):
    """One run. A section that is left out takes its defaults.

    `train`, `autotune`, `qat`, `parity` and `search` run when given.
    """

    name: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")]
    description: str = ""
    target: str
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    model: ModelSection
    data: DataSection
    example_inputs: ExampleInputs = ExampleInputs()
    evaluate: Evaluate = Evaluate()
    train: FloatTrain | None = None
    calibrate: Calibrate = Calibrate()
    quantize: Quantize = Quantize()
    export: Export = Export()
    predict: Predict = Predict()
    prove: Prove = Prove()
    parity: Parity | None = None
    measure: Measure = Measure()
    lower: Lower = Lower()
    autotune: Autotune | None = None
    qat: QAT | None = None
    search: Search | None = None
    report: Report = Report()

    def section(self, path: str) -> Any:
        """A part of the recipe as JSON values, by its dotted path (`evaluate.gate`)."""
        value: Any = self.model_dump(mode="json")
        for key in path.split("."):
            value = value[key] if value is not None else None
        return value
