# ruff: noqa: E501 (messages stand as users see them)
"""A network, data and a metric of the user's own, through the whole chain: two inputs, dict batches, a regression."""

import re
from pathlib import Path
from typing import Any

import pytest

from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.results import EvaluateResult, LintResult, LowerResult, ProveResult
from bitwright.experiments.run import run_recipe
from bitwright.hw_constraints.target import load_target
from bitwright.quant.errors import InputError

CODE = '''
import torch
from torch import nn


class Planner(nn.Module):
    """Predicts a path from a picture and a speed."""

    def __init__(self, channels):
        super().__init__()
        self.picture = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1),
                                     nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.speed = nn.Linear(4, channels)
        self.head = nn.Linear(2 * channels, 6)

    def forward(self, image, speed):
        return {"path": self.head(torch.cat([self.picture(image), self.speed(speed).relu()], 1)).reshape(-1, 3, 2)}


def build(channels=16):
    torch.manual_seed(0)
    return Planner(channels)


def batches(count, rows):
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        image, speed = (torch.rand(rows, *shape, generator=generator) for shape in ((3, 16, 16), (4,)))
        yield {"speed": speed, "image": image, "path": torch.zeros(rows, 3, 2)}


def data():
    return {"calibrate": list(batches(6, 4)), "evaluate": list(batches(3, 5))}


def few():
    return {"calibrate": list(batches(1, 4)), "evaluate": list(batches(1, 4))}


def poisoned():
    loaders = data()
    loaders["calibrate"][2]["image"][1, 0, 0, 0] = float("nan")
    return loaders


def ade(model, loader):
    """Average displacement error against a path of zeros: lower is better."""
    total = count = 0
    for batch in loader:
        path = model(batch["image"], batch["speed"])["path"]
        total += float((path - batch["path"]).norm(dim=-1).mean(1).sum())
        count += len(path)
    return {"minADE": total / count, "samples": count}


def no_number(model, loader):
    return {"minADE": "good"}


def other(model, loader):
    return {"FDE": 1.0}


def not_a_network():
    return 3


class Branching(nn.Module):
    def forward(self, image, speed):
        if speed.mean() > 0.5:
            return image.mean()
        return image.sum()


def branching():
    return Branching()


class Steering(nn.Module):
    """A branch on a value between a layer that is captured and the result."""

    def __init__(self):
        super().__init__()
        self.picture = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Softplus(), nn.Conv2d(16, 16, 3))

    def forward(self, image, speed):
        features = self.picture(image).mean((1, 2, 3))
        if speed.mean() > 0.5:
            features = features * 2
        return features


def steering():
    return Steering()


class Commented(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)

    def forward(self, image, speed):
        x = torch.nn.functional.hardswish(self.first(image))
        x = torch.sin(self.second(x))  # bitwright: ignore[operator_support, partition_break]: twice a day
        x = torch.cos(x)  # bitwright: ignore[dtype]
        return torch.nn.functional.silu(self.first(image)).mean() + x.mean()


def commented():
    return Commented()
'''

RECIPE = """\
name: planner
target: x86-avx2
model: {{entry: {module}:build, arguments: {{channels: 8}}}}
data: {{entry: {module}:data}}
evaluate: {{entry: {module}:ade, metric: minADE, direction: lower, gate: {{max_drop: 0.1}}}}
prove: {{gate: {{min_mac_share: 1.0}}}}
measure: {{seconds: 1}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    module = f"planner_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(CODE)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(module=module))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return module


def go(*overrides: str, **options: Any) -> Any:
    return run_recipe(load_recipe("recipe.yaml", overrides), Path("run"), console=Console(quiet=True), **options)


def test_the_whole_chain(here: str) -> None:
    record = go()
    evaluated = EvaluateResult.model_validate(record.stages["evaluate"].result)
    assert evaluated.direction == "lower" and evaluated.agreement is None
    reference = evaluated.reference.metrics["minADE"].value
    for each in evaluated.quantized:
        assert each.metrics["minADE"].value == pytest.approx(reference, rel=0.05)
        assert each.metrics["samples"].value == 15  # three batches of five through an artefact of batch one
    assert evaluated.sqnr.value > 20
    assert LintResult.model_validate(record.stages["lint"].result).findings == ()
    assert all(p.int8_macs.value == 100 for p in ProveResult.model_validate(record.stages["prove"].result).proofs)
    assert record.passed is True
    assert record.stages["train"].status == "skipped"


def test_a_target_with_a_cost_model_says_what_the_network_takes_there(here: str) -> None:
    record = go("target=ethos-u55-128", until="lower")
    lowered = LowerResult.model_validate(record.stages["lower"].result)
    assert lowered.latency is not None and lowered.latency.origin == "modelled"
    assert lowered.latency.value == pytest.approx(sum(layer.us or 0 for layer in lowered.layers) / 1e3)
    assert {"picture.0", "picture.2", "head"} <= {layer.module_path for layer in lowered.layers}
    # 8x8 and 4x4 results of 3x3 kernels, and two linear layers.
    assert sum(layer.macs for layer in lowered.layers) == 64 * 8 * 27 + 16 * 8 * 72 + 4 * 8 + 16 * 6
    assert lowered.peaks and all(figure.value > 0 for figure in lowered.peaks.values())


def test_a_target_without_a_cost_model_says_so_and_the_run_goes_on(here: str) -> None:
    record = go(until="lower")
    reason = LowerResult.model_validate(record.stages["lower"].result).reason
    assert reason.startswith("target 'x86-avx2' does not serve lower")


def test_a_gate_on_the_modelled_latency_fails_where_nothing_models_it(here: str) -> None:
    record = go("lower={gate: {max_ms: 5}}")
    gate = next(gate for gate in record.gates if gate.name == "modelled latency, ms")
    assert (gate.holds, gate.found) == (False, "not measured")
    assert record.passed is False


@pytest.mark.parametrize(
    ("override", "until", "message"),
    [
        ("model={{entry: {m}:not_a_network}}", "lint",
         "model.entry = '{m}:not_a_network': returned int; expected a torch.nn.Module"),
        ("data.entry={m}:few", "quantize", "data: 4 samples to calibrate with; calibrate.min_samples = 16 asks for more "
         "(ranges from so few do not hold for others); give more data, or lower it in a recipe"),
        ("evaluate.entry={m}:no_number", "evaluate",
         "evaluate.entry = '{m}:no_number': returned dict; expected a dict of numbers by metric name"),
        ("evaluate.entry={m}:other", "evaluate",
         "evaluate.entry = '{m}:other': returned ['FDE']; none is evaluate.metric = 'minADE'"),
        ("example_inputs.entry={m}:batches", "lint", "example_inputs.entry = '{m}:batches': raised TypeError: batches() "
         "missing 2 required positional arguments: 'count' and 'rows'"),
    ],
)  # fmt: skip
def test_entries_that_return_the_wrong_thing(here: str, override: str, until: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message.format(m=here))}"):
        go(override.format(m=here), until=until)


def test_nan_in_calibration_names_layer_and_batch(here: str) -> None:
    message = r"^calibration batch 2: input \$image contains NaN; remove the sample or mend the layer$"
    with pytest.raises(InputError, match=message):
        go(f"data.entry={here}:poisoned", until="quantize")


def linted(here: str, model: str, target: str) -> LintResult:
    record = go(f"model={{entry: {here}:{model}}}", f"target={target}", until="lint")
    return LintResult.model_validate(record.stages["lint"].result)


def test_what_can_be_captured_of_a_network_is_linted_beside_what_stands_in_the_way(here: str) -> None:
    result = linted(here, "steering", "ethos-u85-1024")
    errors = [(each.rule, each.text) for each in result.findings if each.severity == "error"]
    assert ("data_dependent_control_flow", "if speed.mean() > 0.5:") in errors
    assert ("operator_support", "features = self.picture(image).mean((1, 2, 3))") in errors
    assert result.operators == 3 and result.macs.value == 16 * 9 * (3 * 14 * 14 + 16 * 12 * 12)


def test_a_finding_carries_its_modelled_cost_and_comments_take_findings_back(here: str) -> None:
    result = linted(here, "commented", "ethos-u85-1024")
    assert {each.rule for each in result.ignored} >= {"operator_support"}
    assert all("sin" in each.found and each.reason == "twice a day" for each in result.ignored)
    assert not any("sin" in each.found for each in result.findings)
    assert len(result.notices) == 1 and result.notices[0].endswith("ignore[dtype] suppresses nothing; remove it")
    costs = [each.cost for each in result.findings if each.cost is not None]
    assert costs
    for cost in costs:
        assert (cost.unit, cost.origin, cost.source) == ("µs", "modelled", "cost model of ethos-u85-1024")
        assert cost.value > 0


def test_only_the_statements_that_the_network_leans_on_are_named(here: str) -> None:
    target = load_target("orin-dla")
    everything = {each.path for each in target.unverified()}
    named = {each.split(" ")[0] for each in linted(here, "build", "orin-dla").unverified}
    # No pools, no nearest-neighbour resizing and no sparse weights in it; convolutions and figures of the hardware are.
    for left_out in ("constraints.pool_window", "constraints.nearest_factor", "sparsity.2:4"):
        assert any(left_out in each for each in everything)
        assert not any(left_out in each for each in named)
    assert any("constraints.convolution_padding" in each for each in named)


def test_a_network_that_cannot_be_captured_is_a_finding_with_its_line_and_stops_there(here: str) -> None:
    override = f"model={{entry: {here}:branching}}"
    record = go(override, until="lint")
    findings = LintResult.model_validate(record.stages["lint"].result).findings
    assert [finding.severity for finding in findings] == ["error"]
    assert findings[0].text == "if speed.mean() > 0.5:"
    with pytest.raises(InputError, match=r"(?s)^the model cannot be captured\n  .*if speed.mean\(\) > 0.5:\n"):
        go(override, until="quantize")
