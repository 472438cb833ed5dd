"""What cannot be trained is refused in one message that says what to do; what can simply work does, code by code."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bitwright.qat import QATCallback, differences
from bitwright.quant.errors import InputError

from .conftest import Everything, batch, settled


def attached(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **options: object) -> QATCallback:
    optimizer = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    return QATCallback(model, optimizer, **{"target": "x86-vnni", "calibration": [batch()], **options})


def step(qat: QATCallback, seed: int) -> float:
    x, labels = batch(seed=seed)
    qat.model.train()
    loss = F.cross_entropy(qat.model(x), labels)
    qat.optimizer.zero_grad()
    loss.backward()
    qat.optimizer.step()
    qat.on_step()
    return loss.item()


def loss_of(model: nn.Module) -> float:
    x, labels = batch(64, seed=100)
    with torch.no_grad():
        return F.cross_entropy(model.eval()(x), labels).item()


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def untouched(before: dict[str, torch.Tensor], model: nn.Module) -> None:
    now = model.state_dict()
    assert list(before) == list(now)
    assert not [name for name, value in before.items() if not torch.equal(value, now[name])]


def trains(model: nn.Module, tmp_path: Path, **options: object) -> QATCallback:
    """Every scale learns, and at the end the artefact's codes are the module's, on pictures never seen."""
    qat = attached(model, **options)
    before = loss_of(model)
    for seed in range(6):
        step(qat, seed)
    assert loss_of(model) < before
    assert all(bool(q.log_ratio.any()) for _, q in qat.replay.parts.quantizers.named() if q.learned)
    artefact = qat.quantized()
    assert not differences(qat.replay, artefact, (batch(1, seed=77)[0],))
    qat.finish(tmp_path / "model.onnx")
    return qat


# --- what simply works ---


class Tied(nn.Module):
    """Two layers with one weight, and a third that computes with its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.two.weight = self.one.weight
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.one(F.relu(self.stem(x))))
        return self.head(F.relu(self.two(x)).mean((2, 3)))


class TiedBesideNorms(nn.Module):
    """One weight, folded with two batch norms: two weights on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.two.weight = self.one.weight
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norms[0](self.one(F.relu(self.stem(x)))))
        return self.head(F.relu(self.norms[1](self.two(x))).mean((2, 3)))


class CalledTwice(nn.Module):
    """The second call's input and result are a hundred times as wide as the first's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.act = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.ReLU()
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.twice(self.act(self.stem(x))))
        return self.head(self.act(self.twice(x * 100)).mean((2, 3)) / 100)


class Unused(Everything):
    """Layers and batch norms that forward never reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))


def parametrized(normed: Callable[[nn.Module], nn.Module]) -> nn.Module:
    layers = normed(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, 5))


PARAMETRIZED = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
}
WORKS: dict[str, Callable[[], nn.Module]] = {
    "tied": Tied,
    "tied_beside_norms": TiedBesideNorms,
    "called_twice": CalledTwice,
    "unused": Unused,
    **{name: lambda normed=normed: parametrized(normed) for name, normed in PARAMETRIZED.items()},
}


@pytest.mark.parametrize("name", WORKS)
def test_what_simply_works_ends_in_the_same_codes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trains(settled(WORKS[name]()), tmp_path)


def test_two_calls_have_scales_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    qat = attached(CalledTwice())
    scales = [float(s.quantizer.qparams().scale) for _, s in qat.replay.parts.sites if s.ref.module_path == "act"]
    _, first, second = scales
    assert second > 20 * first


def test_frozen_layers_stay_and_their_scales_learn(everything: nn.Module, tmp_path: Path) -> None:
    for parameter in everything.stem.parameters():
        parameter.requires_grad_(False)
    before = everything.stem.weight.clone()
    trains(everything, tmp_path)
    assert torch.equal(everything.stem.weight, before)


def test_an_optimizer_with_a_state_keeps_it(everything: nn.Module) -> None:
    """Fine-tuning goes on in low precision: moments of the float training stay, the scales begin without."""
    optimizer = torch.optim.AdamW(everything.parameters(), lr=3e-3)
    everything.train()
    F.cross_entropy(everything(batch()[0]), batch()[1]).backward()
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict()["state"])
    qat = attached(everything, optimizer)
    after = optimizer.state_dict()["state"]
    assert list(after) == list(before)
    assert all(torch.equal(after[place]["exp_avg"], moments["exp_avg"]) for place, moments in before.items())
    step(qat, 0)
    assert len(optimizer.state_dict()["state"]) > len(before)
    qat.finish()
    assert list(optimizer.state_dict()["state"]) == list(before)


# --- what is refused ---


def test_lazy_modules_are_asked_to_run_once() -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    message = "parameter 0.weight has no shape yet; run the model once on a batch before the callback is attached"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        attached(model, optimizer)
    assert len(optimizer.param_groups) == 1
    model(batch()[0])
    attached(model, optimizer).finish()


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_norms_that_replace_weights_before_each_forward_are_refused(kind: str) -> None:
    model = nn.Sequential(getattr(nn.utils, kind)(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(800, 5))
    before = state(model)
    message = (
        f"0 has torch.nn.utils.{kind}, which replaces its weight before each forward; "
        f"use torch.nn.utils.parametrizations.{kind}, which trains the same"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        attached(model)
    untouched(before, model)


def test_copies_of_data_parallel_are_refused(everything: nn.Module) -> None:
    qat = attached(everything)
    before = state(everything)
    message = (
        "nn.DataParallel copies the model in every step, and its copies train other scales; "
        "use DistributedDataParallel, one process a GPU"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        everything._replicate_for_data_parallel()(batch()[0])
    untouched(before, everything)
    step(qat, 0)


def nan_from(model: nn.Module, where: str) -> torch.Tensor:
    """A NaN loss that begins at one place."""
    x, labels = batch()
    if where == "batch":
        x = x.clone()
        x[3, 1] = float("nan")
    if where == "weight":
        model.blocks[1].conv1.weight.data[0] = float("inf")
    if where == "layer":
        model.blocks[1].conv1.register_forward_hook(lambda module, args, result: result / 0.0 * 0.0)
    loss = F.cross_entropy(model(x), labels)
    return loss * float("nan") if where == "loss" else loss


@pytest.mark.parametrize("method", ["lsq", "ranges"])
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("loss", "all activations of this forward are finite, so it began in the loss or its gradient"),
        ("batch", "the batch itself is not finite"),
        ("weight", "parameter blocks.1.conv1.weight is not finite already"),
        ("layer", "it began in blocks.1.conv1 (ConvolutionConv2d)"),
    ],
)
def test_a_nan_is_traced_to_where_it_began(everything: nn.Module, where: str, words: str, method: str) -> None:
    if (where, method) == ("weight", "ranges"):
        pytest.skip("an infinite weight is clipped to its range; the test below has it")
    qat = attached(everything, method=method)
    step(qat, 0)
    everything.train()
    qat.optimizer.zero_grad()
    loss = nan_from(everything, where)
    before, moments = state(everything), copy.deepcopy(qat.optimizer.state_dict())
    loss.backward()
    kind = "scales" if method == "lsq" else "weights"
    with pytest.raises(
        InputError, match=rf"^step 1: the gradient is NaN or infinite at \d+ of \d+ {kind}, such as "
    ) as met:
        qat.optimizer.step()
    assert f"; {words}. The step was not taken: lower the learning rate, clip gradients, or check the batch" in str(
        met.value
    )
    untouched(before, everything)
    now = qat.optimizer.state_dict()["state"]
    assert all(torch.equal(now[place]["exp_avg"], each["exp_avg"]) for place, each in moments["state"].items())
    assert qat.step == 1


def test_ranges_do_not_take_in_what_is_not_finite(everything: nn.Module) -> None:
    qat = attached(everything, method="ranges")
    everything.train()
    x = batch()[0].clone()
    x[0, 0, 0, 0] = float("inf")
    with torch.no_grad():
        everything(x)
    before = {name: q.extremes.clone() for name, q in qat.replay.parts.quantizers.named()}
    message = r"^activation \$x is NaN or infinite in this step \(\d+ of \d+ are\); lower the learning rate or check "
    with pytest.raises(InputError, match=message):
        qat.on_step()
    assert all(torch.equal(before[name], q.extremes) for name, q in qat.replay.parts.quantizers.named())
    step(qat, 0)


def test_scales_do_not_follow_weights_that_are_not_finite(everything: nn.Module) -> None:
    qat = attached(everything, method="ranges")
    step(qat, 0)
    before = {name: q.start.clone() for name, q in qat.replay.parts.quantizers.named()}
    everything.blocks[1].conv1.weight.data[0] = float("inf")
    message = "weight blocks.1.conv1.weight is NaN or infinite; go back to the last checkpoint"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        qat.on_step()
    assert all(torch.equal(before[name], q.start) for name, q in qat.replay.parts.quantizers.named())


def test_a_scale_that_collapses_is_named(everything: nn.Module) -> None:
    qat = attached(everything)
    step(qat, 0)
    named = dict(qat.replay.parts.quantizers.named())
    named["head.weight"].log_ratio.data[2] = -9.0
    message = (
        "step 2: the scale of head.weight is 0.000123 times what it was at the start; scales learn at the optimizer's "
        "own rate, 0.003; give a smaller scale_lr, or method='ranges'"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        qat.on_step()


@pytest.mark.parametrize("is_later", [False, True], ids=["optimizer", "optimizer_made_later"])
def test_a_learning_rate_that_carries_scales_away_is_refused_before_the_step(
    everything: nn.Module, is_later: bool
) -> None:
    def made() -> torch.optim.Optimizer:
        return torch.optim.AdamW(everything.parameters(), lr=1e30)

    if is_later:
        qat = QATCallback(everything, None, target="x86-vnni", calibration=[batch()])
        optimizer = made()
    else:
        optimizer = made()
        qat = attached(everything, optimizer)
    groups = [list(group["params"]) for group in optimizer.param_groups]
    everything.train()
    F.cross_entropy(everything(batch()[0]), batch()[1]).backward()
    before = state(everything)
    message = (
        "step 0: the optimizer's learning rate is 1e+30, and scales learn at it in shares of themselves; "
        "the step was not taken: lower the learning rate, or give scale_lr, which is below 1"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        optimizer.step()
    untouched(before, everything)
    assert qat.step == 0 and not optimizer.state
    assert all(
        a is b
        for had, has in zip(groups, optimizer.param_groups, strict=True)
        for a, b in zip(had, has["params"], strict=True)
    )
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    optimizer.step()
    assert qat.step == 1


# --- checkpoints ---


def other_scheme(model: nn.Module) -> dict[str, torch.Tensor]:
    return state(attached(copy.deepcopy(model), weights="int4").model)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (other_scheme, "the checkpoint was made with another scheme or another network; give the same ones"),
        (
            lambda model: state(model),
            "this checkpoint is of the float network, without scales; load it before the callback is attached",
        ),
    ],
    ids=["scheme", "float"],
)
def test_another_models_checkpoint_is_refused_whole(
    everything: nn.Module, checkpoint: Callable[[nn.Module], dict[str, torch.Tensor]], message: str
) -> None:
    held = checkpoint(everything)
    held = {name: value + 1 if value.is_floating_point() else value for name, value in held.items()}
    qat = attached(everything)
    step(qat, 0)
    before = state(everything)
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        everything.load_state_dict(held)
    untouched(before, everything)
    assert qat.step == 1


def test_files_that_are_no_checkpoints_are_refused(everything: nn.Module, tmp_path: Path) -> None:
    qat = attached(everything)
    before = state(everything)
    (tmp_path / "text.pt").write_text("nothing")
    torch.save({"model": {}}, tmp_path / "theirs.pt")
    qat.save(tmp_path / "ours.pt")
    other = attached(Everything(), weights="int4")
    other.save(tmp_path / "other.pt")
    scheduler = torch.optim.lr_scheduler.StepLR(qat.optimizer, 1)
    for name, message in (
        ("none.pt", "there is no such checkpoint"),
        ("text.pt", "this is no checkpoint that QATCallback.save wrote"),
        ("theirs.pt", "this is no checkpoint that QATCallback.save wrote: format = None"),
        ("other.pt", "the checkpoint was made with another scheme or another network; give the same ones"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            qat.load(tmp_path / name)
    with pytest.raises(InputError, match="holds no 'scheduler'; it holds callback, model, optimizer"):
        qat.load(tmp_path / "ours.pt", scheduler=scheduler)
    untouched(before, everything)


class HalfCheckpointed(nn.Module):
    """A function call inside a checkpoint that begins in the module's own forward."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.conv, self.head, self.reentrant = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def part(y: torch.Tensor) -> torch.Tensor:
            return F.relu(self.conv(y)) * 2.0

        if not self.training:
            return self.head(part(x).mean((2, 3)))
        return self.head(checkpoint(part, x.requires_grad_(), use_reentrant=self.reentrant).mean((2, 3)))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_in_the_middle_of_a_forward_is_refused(reentrant: bool) -> None:
    torch.manual_seed(0)
    model = HalfCheckpointed(reentrant=reentrant)
    qat = QATCallback(model, None, target="x86-vnni", calibration=[batch()])
    message = (
        "relu in HalfCheckpointed.forward is called in an activation checkpoint that begins in the middle of it, which "
        "the backward pass repeats without the module; checkpoint whole modules, as in checkpoint(self.block, x, "
        "use_reentrant=False)"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        model.train()(batch(2)[0])
    with torch.no_grad():
        assert torch.equal(model.eval()(batch(1)[0]), qat.quantized().run(batch(1)[0]))
