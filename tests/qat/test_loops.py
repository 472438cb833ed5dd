"""What a training loop may do around the callback, each compared with the loop that does not."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from bitwright.qat import QATCallback, QATSchedule
from bitwright.quant.errors import InputError

from .conftest import Everything, batch, settled


def attached(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **options: object) -> QATCallback:
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=3e-3)
    return QATCallback(model, optimizer, target="x86-vnni", calibration=[batch()], **options)


def loss_of(model: nn.Module, seed: int, rows: int = 32) -> torch.Tensor:
    x, labels = batch(rows, seed=seed)
    return F.cross_entropy(model(x).float(), labels)


def train(qat: QATCallback, model: nn.Module, seeds: range) -> list[float]:
    losses = []
    model.train()
    for seed in seeds:
        loss = loss_of(model, seed)
        qat.optimizer.zero_grad()
        loss.backward()
        qat.optimizer.step()
        qat.on_step()
        losses.append(loss.item())
    return losses


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


# --- steps ---


def test_a_step_counts_once_whether_or_not_the_loop_tells(everything: nn.Module) -> None:
    for tells, model in ((False, everything), (True, copy.deepcopy(everything))):
        qat = attached(model)
        for _ in range(3):
            loss_of(model, 0).backward()
            qat.optimizer.step()
            if tells:
                qat.on_step()
        assert qat.step == int(model.qat_quantizers.step) == 3
    qat.on_step()  # a step that a GradScaler skipped
    assert qat.step == 4


def test_an_optimizer_that_is_made_later_is_followed(everything: nn.Module) -> None:
    qat = QATCallback(everything, None, target="x86-vnni", calibration=[batch()])
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    optimizer = torch.optim.AdamW(everything.parameters(), lr=1e-3)
    everything.train()
    loss_of(everything, 0).backward()
    other.step()
    assert qat.step == 0
    optimizer.step()
    assert qat.step == 1
    (loss_of(everything, 0) * float("nan")).backward()
    with pytest.raises(InputError, match="step 1: the gradient is NaN"):
        optimizer.step()
    qat.finish()
    everything.zero_grad()
    optimizer.step()
    assert qat.step == 1


# --- what runs the forward ---


def test_accumulated_batches_move_ranges_as_one_batch_does(everything: nn.Module) -> None:
    """All of a step's batches see one scale, and the range moves by what all of them hold."""
    accumulated, whole = (
        attached(model, torch.optim.SGD(model.parameters(), lr=1e-2), method="ranges")
        for model in (copy.deepcopy(everything), everything)
    )
    x, labels = batch(64, seed=3)
    for _ in range(3):
        for qat, parts in ((accumulated, 4), (whole, 1)):
            qat.model.train()
            qat.optimizer.zero_grad()
            for part, wanted in zip(x.chunk(parts), labels.chunk(parts), strict=True):
                (F.cross_entropy(qat.model(part), wanted) / parts).backward()
            qat.optimizer.step()
            qat.on_step()
    pairs = zip(accumulated.replay.parts.quantizers.named(), whole.replay.parts.quantizers.named(), strict=True)
    for (name, one), (_, other) in pairs:
        torch.testing.assert_close(one.start, other.start, rtol=1e-4, atol=0.0, msg=name)
    assert any(
        not torch.equal(q.extremes, torch.stack(q.qparams().range)) for _, q in whole.replay.parts.quantizers.named()
    )


class Checkpointed(Everything):
    """Computes its blocks, and each call of the shared layer, again in the backward pass."""

    reentrant: bool | None = None

    def again(self, function: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        if self.reentrant is None:
            return function(x)
        return checkpoint(function, x, use_reentrant=self.reentrant)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = self.again(block, x)
        twice = self.again(self.shared, self.again(self.shared, x))
        x = torch.cat([x, twice], dim=1)
        x = F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1).flatten(1)
        return self.head(x)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("method", ["lsq", "ranges"])
def test_activation_checkpointing_changes_no_bit(reentrant: bool, method: str) -> None:
    torch.manual_seed(0)
    plain = settled(Checkpointed())
    again = copy.deepcopy(plain)
    results = []
    for model, setting in ((plain, None), (again, reentrant)):
        qat = attached(model, method=method)
        model.reentrant = setting
        results.append(train(qat, model, range(3)))
        model.reentrant = None
        qat.finish()
    assert results[0] == results[1]
    assert_equal(state(plain), state(again))


def test_checkpointing_counts_a_learning_batch_norm_once() -> None:
    torch.manual_seed(0)
    plain = settled(Checkpointed())
    again = copy.deepcopy(plain)
    for model, setting in ((plain, None), (again, False)):
        qat = attached(model, schedule=QATSchedule(freeze_batch_norm_after=None))
        model.reentrant = setting
        train(qat, model, range(1))
    name = "blocks.0.bn1.running_mean"
    assert torch.equal(plain.state_dict()[name], again.state_dict()[name])
    assert int(again.state_dict()["blocks.0.bn1.num_batches_tracked"]) == 21


def test_a_repeated_call_that_is_another_is_refused() -> None:
    class Shifted(nn.Module):
        def __init__(self, conv: nn.Conv2d) -> None:
            super().__init__()
            self.conv, self.noise = conv, False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x + torch.rand_like(x) if self.noise else x + 0.5)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 5)
            self.shifted = Shifted(self.conv)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            noise = self.shifted.noise
            y = checkpoint(self.shifted, y, use_reentrant=False, preserve_rng_state=False) if noise else self.shifted(y)
            return self.head(y.mean((2, 3)))

    model = Twice()
    qat = attached(model)
    model.train()
    model.shifted.noise = True
    loss = loss_of(model, 0)
    with pytest.raises(
        InputError, match=r"a \w*Conv2d that the network calls several times is computed again .* exactly"
    ):
        loss.backward()
    assert qat.step == 0


@pytest.mark.parametrize("kind", ["everything", "sequential"])
@pytest.mark.parametrize(
    "backend",
    [pytest.param("eager", marks=pytest.mark.slow), "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)],
)
def test_compiling_after_attaching_changes_nothing(kind: str, backend: str) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    plain = settled(Everything() if kind == "everything" else nn.Sequential(*layers, nn.Linear(8, 5)))
    compiled = copy.deepcopy(plain)
    results, networks = [], []
    for model, compiles in ((plain, False), (compiled, True)):
        qat = attached(model)
        run = torch.compile(model, backend=backend) if compiles else model
        results.append(train(qat, run, range(3)))
        run.eval()
        networks.append(run(batch(4)[0]).detach())
        qat.finish()
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    torch.testing.assert_close(networks[0], networks[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "compiles"), [("sequential", True), ("everything", False)])
def test_what_is_compiled_are_layers_outside_of_modules_that_call_functions(kind: str, compiles: bool) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    model = nn.Sequential(*layers) if kind == "sequential" else settled(Everything())
    qat, counter = attached(model), CompileCounter()
    torch._dynamo.reset()
    train(qat, torch.compile(model, backend=counter), range(1))
    assert (counter.op_count > 0) == compiles


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_and_ends_in_the_same_proof(everything: nn.Module, dtype: torch.dtype) -> None:
    qat = attached(everything)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16, init_scale=2.0**10)
    losses = []
    for seed in range(10):
        everything.train()
        with torch.autocast("cpu", dtype=dtype):
            loss = loss_of(everything, seed)
        qat.optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(qat.optimizer)
        scaler.update()
        qat.on_step()
        losses.append(loss.item())
    assert qat.step == 10 and losses[-1] < losses[0]
    qat.finish()


def test_a_step_that_a_scaler_skips_is_no_error(everything: nn.Module) -> None:
    qat = attached(everything)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    everything.train()
    before = state(everything)
    scaler.scale(loss_of(everything, 0) * 1e3).backward()
    scaler.step(qat.optimizer)
    scaler.update()
    qat.on_step()
    assert qat.step == 1
    assert_equal({**before, "qat_quantizers.step": torch.tensor([1])}, state(everything))


# --- copies, and calls in the middle ---


def test_an_averaged_copy_trains_nothing_and_can_be_deployed(everything: nn.Module) -> None:
    qat = attached(everything)
    average = AveragedModel(everything, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for seed in range(4):
        train(qat, everything, range(seed, seed + 1))
        average.update_parameters(everything)
    x = batch(4)[0]
    before = state(everything)
    average.eval()
    expected = average(x).detach()
    assert_equal(before, state(everything))
    assert not torch.equal(expected, everything.eval()(x))
    everything.load_state_dict(average.module.state_dict())
    artefact = qat.finish()
    found = torch.cat([artefact.run(row[None]) for row in x])
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5)


def test_a_call_in_inference_mode_leaves_no_trace(everything: nn.Module) -> None:
    other = copy.deepcopy(everything)
    results = []
    for model, calls in ((everything, True), (other, False)):
        qat = attached(model, method="ranges")
        losses = train(qat, model, range(2))
        if calls:
            with torch.inference_mode():
                model.eval()(batch(seed=9)[0])
        results.append(losses + train(qat, model, range(2, 5)))
    assert results[0] == results[1]
    assert_equal(state(everything), state(other))


# --- resuming ---


@pytest.mark.parametrize("method", ["lsq", "ranges"])
@pytest.mark.parametrize("way", ["own", "save"])
def test_training_goes_on_to_the_last_bit(everything: nn.Module, tmp_path, method: str, way: str) -> None:
    """By the checkpoint that the loop writes of model and optimizer alone, and by `save`; batch norms freeze later."""
    schedule = QATSchedule(freeze_batch_norm_after=4, freeze_observers_after=6)

    def start(model: nn.Module) -> tuple[QATCallback, torch.optim.lr_scheduler.LRScheduler]:
        qat = attached(model, method=method, weights="int4", schedule=schedule)
        return qat, torch.optim.lr_scheduler.CosineAnnealingLR(qat.optimizer, 10)

    whole, fresh = copy.deepcopy(everything), everything
    first, scheduler = start(whole)
    losses = []
    for seed in range(8):
        losses += train(first, whole, range(seed, seed + 1))
        scheduler.step()
        if seed == 2 and way == "save":
            first.save(tmp_path / "at.pt", scheduler=scheduler, epoch=7)
        elif seed == 2:
            held = (whole, first.optimizer, scheduler)
            torch.save([each.state_dict() for each in held], tmp_path / "at.pt")
    second, scheduler = start(fresh)
    if way == "save":
        assert second.load(tmp_path / "at.pt", scheduler=scheduler) == {"epoch": 7}
    else:
        held = torch.load(tmp_path / "at.pt", weights_only=True)
        for each, saved in zip((fresh, second.optimizer, scheduler), held, strict=True):
            each.load_state_dict(saved)
    assert second.step == 3 and not second.replay.frozen
    again = []
    for seed in range(3, 8):
        again += train(second, fresh, range(seed, seed + 1))
        scheduler.step()
    assert again == losses[3:]
    assert_equal(state(whole), state(fresh))
    assert second.replay.frozen


def test_an_earlier_checkpoint_thaws_what_has_frozen_since(everything: nn.Module) -> None:
    """Early stopping goes back to the best epoch."""
    qat = attached(
        everything, method="ranges", schedule=QATSchedule(freeze_batch_norm_after=2, freeze_observers_after=2)
    )
    train(qat, everything, range(1))
    best = state(everything)
    train(qat, everything, range(1, 4))
    assert qat.replay.frozen and not everything.blocks[0].bn1.training
    everything.load_state_dict(best)
    assert qat.step == 1 and not qat.replay.frozen and everything.blocks[0].bn1.training
    assert all(q.observing for _, q in qat.replay.parts.quantizers.named())
    assert_equal(best, state(everything))


def test_draws_go_on_where_the_checkpoint_was(everything: nn.Module, tmp_path) -> None:
    import random

    import numpy as np

    qat = attached(everything)
    qat.save(tmp_path / "at.pt")
    first = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002 - what users' augmentation draws from
    qat.load(tmp_path / "at.pt")
    again = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    assert torch.equal(first[0], again[0]) and (first[1] == again[1]).all() and first[2] == again[2]


def test_a_checkpoint_is_replaced_whole_or_not_at_all(
    everything: nn.Module, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qat = attached(everything)
    qat.save(tmp_path / "at.pt", epoch=1)

    def cut(content: object, file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", cut)
        qat.save(tmp_path / "at.pt", epoch=2)
    assert [path.name for path in tmp_path.iterdir()] == ["at.pt"]
    assert qat.load(tmp_path / "at.pt") == {"epoch": 1}
