"""Real candidates on a real target: a tiny network on made-up pictures of two classes."""

import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.nas.latency import ComparableLatency, open_reference
from bitwright.nas.objective import evaluate, screen
from bitwright.nas.result import Outcome, Result, ResultFiles
from bitwright.nas.search import search
from bitwright.nas.settings import SearchSettings
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate, Value
from bitwright.nas.spaces.mobile_conv import Settings, build
from bitwright.nas.standing import Standing
from bitwright.nas.workload import Accuracy
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import plan

SIZE = 16


class Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs),
            nn.Conv2d(inputs, outputs, 1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Network(nn.Module):
    def __init__(self, width: float = 1.0, kernel: int = 3) -> None:
        super().__init__()
        channels = max(4, round(16 * width / 4) * 4)  # as elastic networks do: several widths are the same network
        self.stem = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Block(channels, channels, kernel) for _ in range(2)))
        self.head = nn.Linear(channels, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@dataclass(frozen=True)
class Stripes:
    """Tells horizontal from vertical stripes in noise."""

    target_name: str = "x86-vnni"
    fails: str = ""
    runtime: str | None = "onnxruntime"
    higher_is_better: bool = True
    fingerprint: Mapping[str, str] = field(default_factory=lambda: {"data": "stripes"})
    trained: list[nn.Module] = field(default_factory=list)
    patterns: list[dict[str, str]] = field(default_factory=list)

    @cached_property
    def target(self) -> Any:
        return load_target(self.target_name)

    @property
    def scheme(self) -> Any:
        return self.target.scheme()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "target"}

    def build(self, architecture: Mapping[str, Value]) -> nn.Module:
        torch.manual_seed(0)
        return Network(**architecture).eval()

    def example(self, model: nn.Module) -> tuple[Any, ...]:
        return (self.pictures(1)[0],)

    def pictures(self, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 2
        stripes = torch.sin(torch.arange(SIZE) * 1.5).expand(count, 1, SIZE, SIZE).clone()
        stripes[labels == 1] = stripes[labels == 1].transpose(2, 3)
        return stripes + 0.3 * torch.randn(stripes.shape, generator=generator), labels

    def train(
        self,
        model: nn.Module,
        sparsity: Mapping[str, str] = MappingProxyType({}),
        go_on: Callable[[float], bool] | None = None,
    ) -> None:
        self.trained.append(model)
        self.patterns.append(dict(sparsity))
        if self.fails == "train":
            raise InputError("the loss became nan")
        if self.fails == "memory":
            raise MemoryError("48 GiB")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        images, labels = self.pictures(64)
        model.train()
        for step in range(15):
            if go_on is not None and not go_on(step / 15):
                return
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def float_accuracy(self, model: nn.Module) -> float:
        images, labels = self.pictures(40, seed=2)
        mode = model.training
        with torch.no_grad():
            found = float((model.eval()(images).argmax(1) == labels).float().mean())
        model.train(mode)
        return found

    def calibration(self, model: nn.Module) -> Iterator[Any]:
        return ((image[None],) for image in self.pictures(16, seed=1)[0])

    def accuracy(self, model: nn.Module, artifact: Path) -> Accuracy:
        if self.fails == "nan":
            return Accuracy(float("nan"))
        session = get_backend("onnxruntime").load(artifact)
        images, labels = self.pictures(40, seed=2)
        (name,) = (each.name for each in session.input_infos)
        logits = np.concatenate([next(iter(session.run({name: each[None].numpy()}).values())) for each in images])
        right = float((logits.argmax(1) == labels.numpy()).mean())
        return Accuracy(right, right - 0.1, right + 0.1)


SPACE = build(Settings(width=(0.5, 0.55, 1.0), kernel=(3, 5), formats=("int8", "float32", "int4", "int16"), stages=2))


def candidate(width: float = 0.5, kernel: int = 3, first: str = "int8", second: str = "int8") -> Candidate:
    return Candidate(SPACE.canonical({"width": width, "kernel": kernel, "format_0": first, "format_1": second}))


def setup_for(folder: Path, workload: Stripes | None = None, **changes: Any) -> Setup:
    return Setup(**{"space": SPACE, "workload": workload or Stripes(), "folder": folder, **changes})


def test_a_candidate_is_trained_quantized_and_scored_in_the_runtime(tmp_path: Path) -> None:
    setup = setup_for(tmp_path)
    result = evaluate(candidate(), setup)
    assert result.outcome is Outcome.SCORED, result.reason
    assert result.figures["accuracy"] >= 0.9
    assert result.trained_seconds > 0
    assert (tmp_path / "artifacts" / f"{result.key}.onnx").exists()


@pytest.mark.parametrize(
    ("first", "found"),
    [
        ("int16", "activations of .* planned as int16"),
        ("int4", "weights of conv2d planned as int4 symmetric per_channel in blocks.0.0; allowed: int8"),
    ],
)
def test_a_format_that_the_target_does_not_compute_in_dies_before_training(
    tmp_path: Path, first: str, found: str
) -> None:
    setup = setup_for(tmp_path)
    result = evaluate(candidate(first=first), setup)
    assert result.outcome is Outcome.INFEASIBLE
    assert result.stage == "lint"
    assert result.trained_seconds == 0.0
    assert setup.workload.trained == []  # type: ignore[attr-defined]
    assert {each.constraint for each in result.violations} == {"lint.dtype"}
    assert re.search(found, result.violations[0].reason)


def test_int16_activations_are_feasible_where_the_target_has_them(tmp_path: Path) -> None:
    limits = {"macs": 1.0}  # ends behind the linter
    result = evaluate(candidate(first="int16"), setup_for(tmp_path, Stripes("ethos-u85-1024"), limits=limits))
    assert [each.constraint for each in result.violations] == ["macs"]


def test_a_limit_on_memory_refuses_before_training(tmp_path: Path) -> None:
    setup = setup_for(tmp_path, limits={"weight_bytes": 100.0})
    result = evaluate(candidate(), setup)
    (violation,) = result.violations
    assert result.stage == "costs"
    assert setup.workload.trained == []  # type: ignore[attr-defined]
    assert violation.amount == pytest.approx(result.figures["weight_bytes"] / 100 - 1)
    assert violation.reason == f"weight_bytes = {result.figures['weight_bytes']:g}; the search's limit is 100"


def test_candidates_that_differ_in_formats_only_share_their_training(tmp_path: Path) -> None:
    setup = setup_for(tmp_path)
    both = [evaluate(candidate(second=fmt), setup) for fmt in ("int8", "float32")]
    assert [each.outcome for each in both] == [Outcome.SCORED] * 2
    assert len(setup.workload.trained) == 1  # type: ignore[attr-defined]


def test_widths_that_round_to_the_same_network_are_scored_once(tmp_path: Path) -> None:
    setup = setup_for(tmp_path)
    first = evaluate(candidate(width=0.5), setup)
    ResultFiles(setup.results).put(first)
    second = evaluate(candidate(width=0.55), setup)
    assert second.same_as == first.key
    assert second.figures == first.figures
    assert second.network == first.network
    assert "train" not in second.seconds


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("nan", "quantize: accuracy is nan"),
        ("train", "train: the loss became nan"),
        ("memory", "train: no memory left: 48 GiB"),
    ],
)
def test_what_goes_wrong_with_a_candidate_ends_in_its_result(tmp_path: Path, fails: str, reason: str) -> None:
    result = evaluate(candidate(), setup_for(tmp_path, Stripes(fails=fails)))
    assert (result.outcome, result.reason) == (Outcome.FAILED, reason)
    assert "accuracy" not in result.figures


def test_a_setup_travels_to_other_processes(tmp_path: Path) -> None:
    setup = setup_for(tmp_path)
    first = evaluate(candidate(first="int16"), setup)
    there_candidate, there = pickle.loads(pickle.dumps((candidate(first="int16"), setup)))
    assert without_times(evaluate(there_candidate, there)) == without_times(first)


def without_times(result: Result) -> Result:
    return result.model_copy(update={"seconds": {}})


def test_a_whole_search_with_measured_latency(tmp_path: Path) -> None:
    workload = Stripes()
    settings = SearchSettings(trials=8, seed=3)
    outcome = search(SPACE, workload, settings, tmp_path)
    infeasible = [each for each in outcome.results if each.outcome is Outcome.INFEASIBLE]
    assert len(infeasible) >= 2
    assert all(each.trained_seconds == 0.0 for each in infeasible)
    for each in outcome.scored:
        low, high = each.figures["latency_ms_low"], each.figures["latency_ms_high"]
        assert 0 < low <= each.figures["latency_ms"] <= high
    trained = len(workload.trained)
    again = search(SPACE, workload, settings, tmp_path)
    assert again.results == outcome.results
    assert len(workload.trained) == trained


def predicting(monkeypatch: pytest.MonkeyPatch, low: float, high: float = 3.0) -> Path:
    """A table that says 2 ms of everything."""
    found = ComparableLatency(latency_ms=2.0, low_ms=low, high_ms=high)
    monkeypatch.setattr("bitwright.nas.latency.predicted_latency", lambda table: lambda graph, plan: found)
    return Path("made-up.table")


def test_what_is_surely_too_slow_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = predicting(monkeypatch, low=1.5)
    setup = setup_for(tmp_path, limits={"latency_ms": 1.2}, table=table)
    result = evaluate(candidate(), setup)
    assert (result.outcome, result.stage) == (Outcome.INFEASIBLE, "predict")
    assert setup.workload.trained == []  # type: ignore[attr-defined]
    (violation,) = result.violations
    assert violation.reason == "latency_ms is predicted as 2, at least 1.5; the search's limit is 1.2"
    assert violation.amount == pytest.approx(0.25)


def test_what_may_be_fast_enough_is_trained_and_keeps_its_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = predicting(monkeypatch, low=1.5)
    result = evaluate(candidate(), setup_for(tmp_path, limits={"latency_ms": 1.6}, table=table))
    assert result.outcome is Outcome.SCORED
    assert {name: value for name, value in result.figures.items() if name.startswith("predicted")} == {
        "predicted_ms": 2.0, "predicted_ms_low": 1.5, "predicted_ms_high": 3.0,
    }  # fmt: skip


def test_a_table_without_intervals_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = predicting(monkeypatch, low=0.0, high=float("inf"))
    result = evaluate(candidate(), setup_for(tmp_path, limits={"latency_ms": 0.1}, table=table))
    assert result.outcome is Outcome.SCORED
    assert "predicted_ms_high" not in result.figures


@pytest.mark.parametrize("needed", [True, False])
def test_without_a_prediction_a_candidate_is_measured_unless_the_search_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: bool
) -> None:
    def refuses(graph: object, plan: object) -> ComparableLatency:
        raise InputError("no kernel for that")

    monkeypatch.setattr("bitwright.nas.latency.predicted_latency", lambda table: refuses)
    setup = setup_for(tmp_path, table=Path("made-up.table"), prediction_needed=needed)
    result = evaluate(candidate(), setup)
    assert result.outcome is (Outcome.FAILED if needed else Outcome.SCORED)
    assert result.reason == ("predict: no kernel for that" if needed else "")


def test_what_no_machine_here_runs_is_modelled(tmp_path: Path) -> None:
    target = Stripes("ethos-u85-1024", runtime=None)
    result = screen(candidate(), setup_for(tmp_path, target, wanted=frozenset({"modelled_ms"})))
    assert result.outcome is Outcome.SCORED
    graph = fold_batch_norm(capture(target.build({"width": 0.5}), target.example(nn.Identity()))).graph
    alone = estimate(lower(graph, target.target, plan=plan(graph, target.scheme)))
    assert result.figures["modelled_ms"] == pytest.approx(alone.us / 1e3)
    assert target.trained == []


def test_zeros_make_the_weights_of_a_modelled_target_smaller(tmp_path: Path) -> None:
    space = build(Settings(width=(0.5, 32.0), sparsity=("dense", "2:4"), stages=2))
    setup = setup_for(tmp_path, Stripes("ethos-u85-1024", runtime=None), space=space, wanted=frozenset({"modelled_ms"}))
    dense, sparse = (
        screen(Candidate(space.canonical({"width": 32.0, "sparsity_0": each, "sparsity_1": each})), setup)
        for each in ("dense", "2:4")
    )
    assert sparse.network != dense.network
    assert sparse.figures["macs"] == dense.figures["macs"]
    assert sparse.figures["modelled_ms"] < dense.figures["modelled_ms"]


def test_a_pattern_is_trained_in_its_blocks_and_weights_are_not_shared_with_dense_ones(tmp_path: Path) -> None:
    space = build(Settings(width=(0.5, 1.0), sparsity=("dense", "2:4", "8x1", "3:7"), stages=2))
    setup = setup_for(tmp_path, Stripes("ethos-u85-1024"), space=space)
    made = [
        evaluate(Candidate(space.canonical({"width": 0.5, "sparsity_0": first, "sparsity_1": second})), setup)
        for first, second in (("dense", "dense"), ("8x1", "2:4"), ("dense", "3:7"))
    ]
    assert [each.outcome for each in made] == [Outcome.SCORED, Outcome.SCORED, Outcome.INFEASIBLE]
    assert setup.workload.patterns == [{}, {"blocks.0": "8x1", "blocks.1": "2:4"}]  # type: ignore[attr-defined]
    (violation,) = made[2].violations
    assert violation.constraint == "sparsity"
    assert violation.reason == "blocks.1 cannot be 3:7: 1 input channels are no multiple of 7"


@pytest.mark.parametrize(
    ("others", "reasons"),
    [
        ((), ["zeros in 2:4 save nothing on x86-vnni, whose description names no sparsity; allowed: dense"]),
        (("ethos-u85-1024",), []),
    ],
)
def test_zeros_that_save_nothing_are_refused_untrained(
    tmp_path: Path, others: tuple[str, ...], reasons: list[str]
) -> None:
    space = build(Settings(width=(0.5, 1.0), sparsity=("dense", "2:4"), stages=2))
    setup = setup_for(tmp_path, space=space, others=tuple(Stripes(each, runtime=None) for each in others))
    sparse, dense = (
        screen(Candidate(space.canonical({"width": 0.5, "sparsity_0": "dense", "sparsity_1": each})), setup)
        for each in ("2:4", "dense")
    )
    assert [each.reason for each in sparse.violations if each.constraint == "sparsity"] == reasons
    assert dense.violations == ()


def test_two_targets_count_with_the_worst_or_by_weights(tmp_path: Path) -> None:
    other = Stripes("ethos-u85-1024", runtime=None)
    found = {}
    for name, weights in {"worst": None, "mean": {"x86-vnni": 0.25, "ethos-u85-1024": 0.75}}.items():
        setup = setup_for(tmp_path / name, others=(other,), weights=weights, wanted=frozenset({"modelled_ms"}))
        found[name] = evaluate(candidate(), setup)
        assert found[name].outcome is Outcome.SCORED, found[name].reason
        for figure in ("accuracy", "weight_bytes", "activation_bytes"):
            one, two = (found[name].figures[f"{figure}@{target}"] for target in ("x86-vnni", "ethos-u85-1024"))
            worst = min(one, two) if figure == "accuracy" else max(one, two)
            assert found[name].figures[figure] == pytest.approx(worst if weights is None else one / 4 + two * 3 / 4)
    assert found["worst"].figures["modelled_ms"] == found["worst"].figures["modelled_ms@ethos-u85-1024"]


@pytest.mark.parametrize("weights", [None, {"x86-vnni": 1.0, "x86-avx2": 3.0, "ethos-u85-1024": 9.0}])
def test_latency_is_measured_on_each_target_that_something_here_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Mapping[str, float] | None
) -> None:
    effort = {"min_rounds": 5, "max_seconds": 0.2, "target_half_width": 0.5}
    monkeypatch.setattr("bitwright.nas.latency._EFFORT", effort)
    others = (Stripes("x86-avx2"), Stripes("ethos-u85-1024", runtime=None))
    reference = open_reference(Stripes(), "onnxruntime", tmp_path, threads=1)
    setup = setup_for(tmp_path, others=others, weights=weights, references={"onnxruntime": reference})
    figures = evaluate(candidate(), setup).figures
    assert {name for name in figures if "latency" in name and "@" in name} == {
        f"{name}@{target}"
        for name in ("latency_ms", "latency_ms_low", "latency_ms_high")
        for target in ("x86-vnni", "x86-avx2")
    }
    for name in ("latency_ms", "latency_ms_low", "latency_ms_high"):
        one, two = figures[f"{name}@x86-vnni"], figures[f"{name}@x86-avx2"]
        assert figures[name] == pytest.approx(max(one, two) if weights is None else one / 4 + two * 3 / 4)
    assert 0 < figures["latency_ms_low"] <= figures["latency_ms"] <= figures["latency_ms_high"]


def test_a_limit_on_the_mean_of_targets_is_not_held_against_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, weights = predicting(monkeypatch, low=1.5), {"x86-vnni": 1.0, "x86-avx2": 3.0}
    for limit, outcome in {0.4: Outcome.SCORED, 0.3: Outcome.INFEASIBLE}.items():  # 1.5 ms count a quarter
        setup = setup_for(
            tmp_path / str(limit), others=(Stripes("x86-avx2"),), weights=weights, limits={"latency_ms": limit},
            table=table,
        )  # fmt: skip
        result = screen(candidate(), setup)
        assert result.outcome is outcome
    assert result.violations[0].reason == "latency_ms is predicted as 0.5, at least 0.375; the search's limit is 0.3"


@pytest.mark.parametrize(
    ("runtime", "others", "weights", "share"),
    [
        ("onnxruntime", (), None, 1.0),
        ("onnxruntime", ("x86-avx2",), None, 1.0),
        ("onnxruntime", ("x86-avx2",), {"x86-vnni": 1.0, "x86-avx2": 3.0}, 0.25),
        (None, ("x86-avx2",), None, 0.0),
    ],
)
def test_how_much_of_the_first_target_s_latency_counts(
    tmp_path: Path, runtime: str | None, others: tuple[str, ...], weights: Mapping[str, float] | None, share: float
) -> None:
    setup = setup_for(tmp_path, Stripes(runtime=runtime), others=tuple(map(Stripes, others)), weights=weights)
    assert setup.first_share == share


def test_what_one_of_two_targets_refuses_is_infeasible(tmp_path: Path) -> None:
    result = screen(candidate(first="int16"), setup_for(tmp_path, Stripes("ethos-u85-1024"), others=(Stripes(),)))
    assert {each.constraint for each in result.violations} == {"lint.dtype@x86-vnni"}


def test_a_candidate_that_cannot_reach_the_front_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Inherits:
        def __call__(self, one: Candidate) -> float:
            return 0.5

        def network(self, one: Candidate) -> nn.Module:
            return Stripes().build(SPACE.architecture(one))

    setup = setup_for(
        tmp_path, table=predicting(monkeypatch, low=1.5), inherited=Inherits(),
        objectives=("accuracy", "latency_ms"), maximize=(True, False),
    )  # fmt: skip
    beaten = evaluate(candidate(), setup.against(Standing(front=((-0.8, 1.4),), gains={"inherited_accuracy": 0.2})))
    assert (beaten.outcome, beaten.stage) == (Outcome.BEATEN, "inherit")
    assert beaten.reason == "at best accuracy 0.7, latency_ms 1.5; another has accuracy 0.8, latency_ms 1.4"
    assert setup.workload.trained == []  # type: ignore[attr-defined]
    unmeasured = evaluate(candidate(), setup.against(Standing(front=((-1.1, 1.4),), gains={"inherited_accuracy": 0.9})))
    assert (unmeasured.outcome, unmeasured.stage) == (Outcome.BEATEN, "quantize")
    still = evaluate(candidate(), setup.against(Standing(front=((-0.8, 1.6),), gains={"inherited_accuracy": 0.2})))
    assert still.outcome is Outcome.SCORED


def test_a_training_ends_at_the_rung_where_the_front_is_out_of_reach(tmp_path: Path) -> None:
    setup = setup_for(tmp_path, objectives=("accuracy", "macs"), maximize=(True, False), rungs=(0.2, 0.3, 0.6))
    no_work = Standing(front=((-2.0, 0.0),), gains={"accuracy_after_0.3": 0.1})
    beaten = evaluate(candidate(), setup.against(no_work))
    assert (beaten.outcome, beaten.stage) == (Outcome.BEATEN, "train")
    assert {name for name in beaten.figures if "after" in name} == {"accuracy_after_0.2", "accuracy_after_0.3"}
    assert beaten.reason.startswith(f"at best accuracy {beaten.figures['accuracy_after_0.3'] + 0.1:.5g}, macs ")
    assert not (tmp_path / "weights").exists()
    still = evaluate(candidate(), setup.against(Standing(front=((-2.0, 0.0),), gains={"accuracy_after_0.3": 9.0})))
    assert still.outcome is Outcome.SCORED
    assert "accuracy_after_0.6" in still.figures
    assert still.figures["accuracy"] == evaluate(candidate(), setup_for(tmp_path / "plain")).figures["accuracy"]


def test_a_limit_on_accuracy_is_the_least(tmp_path: Path) -> None:
    result = evaluate(candidate(), setup_for(tmp_path, limits={"accuracy": 2.0}))
    assert result.outcome is Outcome.INFEASIBLE
    (violation,) = result.violations
    assert violation.amount == pytest.approx((2.0 - result.figures["accuracy"]) / 2.0)
