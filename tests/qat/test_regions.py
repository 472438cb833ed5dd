"""A model whose Python decides on the data trains in its regions; the rest stays float and is named with its line."""

import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.qat import Deployed, QATBoard, QATCallback, QATSchedule, QuantizedRegions, Stage
from bitwright.quant.errors import InputError
from bitwright.quant.regions import find_regions
from bitwright.quant.scheme import Override
from bitwright.quant.swap_regions import quantize_regions

from .conftest import batch, settled


class EarlyExit(nn.Module):
    """Bright pictures take a short way, dark ones a long one: which layers run depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.short = nn.Linear(8, 5)
        self.long = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x.mean() > 0.6
        x = self.stem(x)
        if bright:
            return self.short(x.mean((2, 3)))
        return self.head(F.relu(self.long(x)).mean((2, 3)))


class Refining(nn.Module):
    """A layer is called until its result no longer moves: how often depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Flatten(), nn.Linear(432, 16), nn.ReLU())
        self.cell = nn.Sequential(nn.Linear(16, 16), nn.Tanh())
        self.head = nn.Linear(16, 5)
        self.rounds = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        state, moved, self.rounds = torch.zeros_like(x), 1.0, 0
        while moved > 0.05 and self.rounds < 12:
            new = self.cell(x + state)
            moved = float((new - state).detach().abs().mean())
            state, self.rounds = new, self.rounds + 1
        return self.head(state)


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip() == text)


def attached(model: nn.Module, **options: object) -> QATCallback:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    loader = [batch(8, seed=seed) for seed in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return QATCallback(model, optimizer, **{"target": "x86-vnni", "calibration": loader, **options})


def picture(seed: int, *, bright: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """One whose mean is above or below what decides."""
    x, label = batch(1, seed=seed)
    return x - x.mean() + (1.0 if bright else 0.2), label


def step(qat: QATCallback, seed: int) -> float:
    x, labels = picture(seed, bright=bool(seed % 2))
    qat.model.train()
    loss = F.cross_entropy(qat.model(x), labels)
    qat.optimizer.zero_grad()
    loss.backward()
    qat.optimizer.step()
    qat.on_step()
    return loss.item()


def test_a_data_dependent_branch_trains_in_its_regions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = EarlyExit()
    keys, names = list(model.state_dict()), [name for name, _ in model.named_modules()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loader = [batch(8, seed=seed) for seed in range(4)]
    line = line_of("if bright:")
    message = (
        "the model is not one graph; what trains in low precision are its regions stem, short, long, head. "
        "In float stay:\n  the model (EarlyExit): the values of tensors decide what runs "
        f"({__file__}:{line}: if bright:)"
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        qat = QATCallback(model, optimizer, target="x86-vnni", calibration=loader)
    assert list(model.state_dict())[: len(keys)] == keys
    assert all(key.startswith("qat_quantizers.") for key in list(model.state_dict())[len(keys) :])
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    first = sum(step(qat, seed) for seed in range(8))
    for seed in range(8, 40):
        step(qat, seed)
    assert sum(step(qat, seed) for seed in range(8)) < first
    moved = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
    assert moved >= set(dict(EarlyExit().named_parameters()))
    scales = {name for name, q in qat.replay.parts.quantizers.named() if q.learned and not q.log_ratio.any()}
    assert not scales  # both ways were taken, so that every scale has learned
    artefact = qat.finish(tmp_path / "early.onnx")
    assert isinstance(artefact, QuantizedRegions)
    assert list(model.state_dict()) == keys and [name for name, _ in model.named_modules()] == names
    listed = json.loads((tmp_path / "early.regions.json").read_text())
    assert {name: each["file"] for name, each in listed["regions"].items()} == {
        name: f"early.{name}.onnx" for name in ("stem", "short", "long", "head")
    }
    assert listed["float"] == [
        {
            "module": "",
            "type": "EarlyExit",
            "reason": "the values of tensors decide what runs",
            "source": f"{__file__}:{line}",
        }
    ]
    for bright in (False, True):
        x = picture(77, bright=bright)[0]
        torch.testing.assert_close(by_hand(tmp_path, x), artefact.run(x), atol=0.05, rtol=0.0)


def by_hand(folder: Path, x: torch.Tensor) -> torch.Tensor:
    """The branch written here, over the files on ONNX Runtime."""

    def call(name: str, value: torch.Tensor) -> torch.Tensor:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(folder / f"early.{name}.onnx", options, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: value.numpy()})[0])

    y = call("stem", x)
    if x.mean() > 0.6:
        return call("short", y.mean((2, 3)))
    return call("head", F.relu(call("long", y)).mean((2, 3)))


def test_a_loop_whose_count_depends_on_data_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Refining()
    qat = attached(model)
    assert [region.path for region, _ in qat.prepared.regions] == ["embed", "cell", "head"]
    rounds = set()
    for seed in range(30):
        loss = step(qat, seed)
        rounds.add(model.rounds)
    assert len(rounds) > 1 and loss == loss
    assert all(bool(q.log_ratio.any()) for _, q in qat.replay.parts.quantizers.named() if q.learned)
    seen: dict[str, float] = {}
    writer = SimpleNamespace(add_scalar=lambda tag, value, _: seen.update({tag: value}), add_histogram=lambda *_: None)
    QATBoard(qat, writer, held_out=(batch(1)[0],), deployed=Deployed(latency_ms=lambda network: 2.0))
    assert seen["qat/deployed_sqnr_db"] == 200.0  # equal to the last bit
    assert {tag for tag in seen if "latency" in tag} == {
        f"qat/deployed_latency_ms/{name}" for name in ("embed", "cell", "head")
    }
    deployed = qat.quantized_regions()
    model.eval()
    for seed in range(5):
        x = batch(1, seed=200 + seed)[0]
        with torch.no_grad():
            assert torch.equal(deployed.run(x), model(x))
    qat.finish(tmp_path / "loop.onnx")
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix == ".onnx") == [
        "loop.cell.onnx",
        "loop.embed.onnx",
        "loop.head.onnx",
    ]


@pytest.fixture(scope="module", name="pieces")
def _pieces() -> tuple[EarlyExit, QATCallback]:
    """Prepared once, since finding regions takes seconds; no test changes it."""
    torch.manual_seed(0)
    model = settled(EarlyExit())
    return model, attached(model)


def test_each_region_has_the_plan_that_it_would_have_after_training(pieces: tuple[EarlyExit, QATCallback]) -> None:
    torch.manual_seed(0)
    model, scheme = settled(EarlyExit()), load_target("x86-vnni").scheme()
    samples = [((picture(seed, bright=bool(seed % 2))[0],), {}) for seed in range(4)]
    after = {}
    for args, _ in samples[:2]:
        after |= quantize_regions(model, find_regions(model, args).regions, scheme, samples)
    trained = dict((region.path, plan) for region, plan in pieces[1].prepared.regions)
    assert set(trained) == set(after)
    for path, plan in trained.items():
        theirs = after[path].plan
        assert plan.activations == theirs.activations and plan.weights == theirs.weights
        assert plan.groups == theirs.groups and plan.biases == theirs.biases and plan.fused == theirs.fused


def test_training_in_regions_goes_on_from_a_checkpoint_to_the_last_bit(tmp_path: Path) -> None:
    schedule = QATSchedule(stages=(Stage(until=4, weights="int8"),))

    def made() -> QATCallback:
        torch.manual_seed(0)
        return attached(Refining(), weights="int4", schedule=schedule)

    first = made()
    for seed in range(3):
        step(first, seed)
    first.save(tmp_path / "half.pt")
    for seed in range(3, 7):
        step(first, seed)
    second = made()
    second.load(tmp_path / "half.pt")
    assert second.step == 3
    for seed in range(3, 7):
        step(second, seed)
    ours, theirs = second.model.state_dict(), first.model.state_dict()
    assert list(ours) == list(theirs)
    assert not [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert {spec.format.name for spec in second.scheduled.formats.plan.weights.values()} == {"int4"}


def test_overrides_name_modules_by_their_place_in_the_model() -> None:
    scheme = load_target("x86-vnni").scheme().with_overrides(Override(module="embed.1", keep_float=True))
    torch.manual_seed(0)
    qat = attached(Refining(), target=None, scheme=scheme)
    assert [region.path for region, _ in qat.prepared.regions] == ["cell", "head"]
    (model, embed) = qat.prepared.left_float
    assert (model.module_path, embed.module_path) == ("", "embed")
    assert embed.reason.startswith(f"scheme {scheme.name!r} quantizes no layer of it: ")


class TwoSizes(nn.Module):
    """One module on pictures of two sizes, between decisions on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 5)
        self.spare = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.body(x) + self.body(x[..., ::2, ::2])
        if found.mean() > 1e6:
            return self.spare(found)
        return self.head(found)


def test_a_module_of_two_sizes_has_one_scale_and_two_networks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    qat = attached(TwoSizes())
    assert [region.names for region, _ in qat.prepared.regions] == [("body", "body#2"), ("head",)]
    assert [str(part) for part in qat.prepared.left_float[1:]] == ["spare (Linear): no calibration sample reaches it"]
    step(qat, 0)
    spelled = "the model is not one graph: it trains in the regions body, body#2, head; call quantized_regions(), "
    with pytest.raises(InputError, match=f"^{re.escape(spelled)}which has a network for each$"):
        qat.quantized()
    artefact = qat.finish(tmp_path / "sizes.onnx")
    assert isinstance(artefact, QuantizedRegions)
    first, second = (artefact.regions[name] for name in ("body", "body#2"))
    assert first.qparams.keys() == second.qparams.keys()
    assert all(torch.equal(first.qparams[ref].scale, second.qparams[ref].scale) for ref in first.qparams)
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix == ".onnx") == [
        "sizes.body-2.onnx", "sizes.body.onnx", "sizes.head.onnx"
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"^region body: .*got float32\[2, 3, 12, 12\].*was captured with "):
        artefact.run(batch(2)[0])


def test_nothing_that_can_be_captured_is_said_with_each_line() -> None:
    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 432))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.mean() > 0.1:
                x = -x
            return F.linear(x.flatten(1), self.weight)

    model = Nothing()
    line = line_of("if x.mean() > 0.1:")
    message = (
        "no part of this model can be captured, so nothing of it can train in low precision:\n"
        f"  the model (Nothing): the values of tensors decide what runs ({__file__}:{line}: if x.mean() > 0.1:)\n"
        "  the value of a tensor decides what runs next: use torch.where, a fixed number of steps, or torch.cond; "
        "or capture the part around it as regions"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        attached(model)
    assert list(model.state_dict()) == ["weight"]


class Borrowed(nn.Module):
    """A layer of a region is called from outside of it, too, which no network of a region can say."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(432, 16), nn.ReLU(), nn.Linear(16, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        if y.mean() < 1e6:
            y = self.body[3](y)
        return self.head(y)


def test_a_layer_that_is_called_beside_its_region_is_found_by_the_proof() -> None:
    torch.manual_seed(0)
    qat = attached(Borrowed())
    message = (
        "each region computes the same codes as its network, yet the whole model does not compute the same as "
        "with its networks in their places; a module that lies in a region is called from outside of it as well"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        qat.finish()
    assert qat.replay.is_attached
    step(qat, 0)


def test_training_in_regions_starts_where_rounding_them_ended() -> None:
    torch.manual_seed(0)
    model, scheme = Refining(), load_target("x86-vnni").scheme()
    samples = [((batch(1, seed=seed)[0],), {}) for seed in range(4)]
    after = quantize_regions(model, find_regions(model, samples[0][0]).regions, scheme, samples)
    qat = attached(model, target=None, scheme=scheme)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one = "the model trains in the regions cell, embed, head; give a network for each, as quantize_regions(model, "
    for given, message in (
        (after["embed"], f"{one}find_regions(model, example).regions, scheme, samples) returns them"),
        (
            {"embed": after["embed"], "head": after["head"]},
            "the model trains in the regions cell, embed, head, and there is no quantized network of cell; quantize "
            "that one, too, on samples that reach it",
        ),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            qat.warm_start(given)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    qat.warm_start(after)
    deployed = qat.quantized_regions().regions
    inner = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    for path, x in (("embed", batch(1, seed=9)[0]), ("cell", inner), ("head", inner)):
        for ref, qparams in after[path].qparams.items():
            assert torch.equal(deployed[path].qparams[ref].scale, qparams.scale)
        torch.testing.assert_close(deployed[path].run(x), after[path].run(x), atol=1e-6, rtol=1e-6)
    step(qat, 0)


class ManySizes(nn.Module):
    """One module on five sizes in one run."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes = range(8, 13)
        found = sum(self.body(x[..., :size]) for size in sizes)
        return self.head(found if found.mean() < 1e6 else -found)


def test_a_module_of_too_many_sizes_is_named_with_what_to_do() -> None:
    torch.manual_seed(0)
    model = ManySizes()
    with pytest.warns(UserWarning, match="^the model is not one graph") as warned:
        qat = QATCallback(model, None, target="x86-vnni", calibration=[batch(4)])
    line = line_of("found = sum(self.body(x[..., :size]) for size in sizes)")
    assert (
        "\n  body (Sequential): Sequential is called with 5 different shapes in one run; pad its inputs to one size, "
        f"so that one graph serves all calls ({__file__}:{line}: "
    ) in str(warned[0].message)
    assert [region.path for region, _ in qat.prepared.regions] == ["head"]
