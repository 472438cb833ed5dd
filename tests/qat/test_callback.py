import copy
import io
import re
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback, QATSchedule, with_formats
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import EXPORTERS
from bitwright.quant.scheme import QuantScheme

from .conftest import batch


def optimizer_of(model: nn.Module, **options: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), **{"lr": 3e-3, "weight_decay": 0.05, **options})


def one_step(qat: QATCallback, seed: int) -> float:
    x, labels = batch(seed=seed)
    qat.model.train()
    loss = F.cross_entropy(qat.model(x), labels)
    assert qat.optimizer is not None
    qat.optimizer.zero_grad()
    loss.backward()
    qat.optimizer.step()
    qat.on_step()
    return loss.item()


def test_three_lines_in_a_plain_loop(everything: nn.Module, tmp_path: Path) -> None:
    optimizer = optimizer_of(everything)
    loader = [batch(seed=seed) for seed in range(20)]
    losses = []
    qat = QATCallback(everything, optimizer, target="x86-vnni", calibration=loader)
    everything.train()
    for x, labels in loader:
        loss = F.cross_entropy(everything(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        qat.on_step()
        losses.append(loss.item())
    artefact = qat.finish(tmp_path / "trained.onnx")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(tmp_path / "trained.onnx", options, providers=["CPUExecutionProvider"])
    for seed in range(5):
        x = batch(1, seed=50 + seed)[0]
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        # The same Q/DQ arithmetic by other float kernels: a code may move by one at a tie.
        torch.testing.assert_close(torch.from_numpy(found), artefact.run(x), atol=0.05, rtol=0.0)


def test_scales_are_a_group_of_their_own_without_decay(everything: nn.Module) -> None:
    optimizer = optimizer_of(everything)
    own = [id(parameter) for parameter in optimizer.param_groups[0]["params"]]
    qat = QATCallback(
        everything, optimizer, target="x86-vnni", calibration=[batch()], schedule=QATSchedule(scale_lr=6e-4)
    )
    assert [id(parameter) for parameter in optimizer.param_groups[0]["params"]] == own
    group = optimizer.param_groups[1]
    assert group["weight_decay"] == 0.0 and group["lr"] == 6e-4 and group["lr_scale"] == pytest.approx(0.2)
    learned = [q.log_ratio for _, q in qat.replay.parts.quantizers.named()]
    assert group["params"] == learned and len(learned) > 10
    before = [scale.detach().clone() for scale in learned]
    for seed in range(3):
        one_step(qat, seed)
    assert all(not torch.equal(old, new) for old, new in zip(before, learned, strict=True))


def test_scales_for_an_optimizer_that_is_made_later(everything: nn.Module) -> None:
    qat = QATCallback(everything, None, target="x86-vnni", calibration=[batch()], schedule=QATSchedule(scale_lr=1e-4))
    (group,) = qat.param_groups()
    theirs = {id(parameter) for parameter in group["params"]}
    rest = [parameter for parameter in everything.parameters() if id(parameter) not in theirs]
    optimizer = torch.optim.SGD([{"params": rest}, group], lr=1e-2, weight_decay=0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [1e-2, 1e-4]
    assert optimizer.param_groups[1]["weight_decay"] == 0.0


def test_scales_that_do_not_learn_follow_the_data(everything: nn.Module) -> None:
    optimizer = optimizer_of(everything)
    qat = QATCallback(
        everything,
        optimizer,
        target="x86-vnni",
        calibration=[batch()],
        method="ranges",
        schedule=QATSchedule(freeze_observers_after=4),
    )
    assert len(optimizer.param_groups) == 1

    def scales() -> list[torch.Tensor]:
        return [q.start.clone() for _, q in qat.replay.parts.quantizers.named()]

    seen = [scales()]
    for seed in range(6):
        one_step(qat, seed)
        seen.append(scales())
    assert any(not torch.equal(a, b) for a, b in zip(seen[0], seen[4], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seen[4], seen[6], strict=True))
    qat.finish()


def test_training_resumes_bit_by_bit(everything: nn.Module) -> None:
    def start(model: nn.Module) -> QATCallback:
        return QATCallback(
            model,
            optimizer_of(model),
            target="x86-vnni",
            weights="int4",
            calibration=[batch()],
            schedule=QATSchedule(freeze_batch_norm_after=6),
        )

    whole, fresh = copy.deepcopy(everything), everything
    first = start(whole)
    for seed in range(4):
        one_step(first, seed)
    assert first.optimizer is not None
    file = io.BytesIO()
    torch.save([whole.state_dict(), first.optimizer.state_dict(), first.state_dict()], file)
    rest = [one_step(first, seed) for seed in range(4, 10)]

    file.seek(0)
    model_state, optimizer_state, callback_state = torch.load(file, weights_only=True)
    second = start(fresh)
    fresh.load_state_dict(model_state)
    assert second.optimizer is not None
    second.optimizer.load_state_dict(optimizer_state)
    second.load_state_dict(callback_state)
    assert second.step == 4
    assert [one_step(second, seed) for seed in range(4, 10)] == rest
    x = batch(4)[0]
    assert torch.equal(whole.eval()(x), fresh.eval()(x))


def test_a_checkpoint_of_another_plan_is_refused(everything: nn.Module) -> None:
    other = QATCallback(copy.deepcopy(everything), None, target="x86-vnni", weights="int4", calibration=[batch()])
    qat = QATCallback(everything, None, target="x86-vnni", calibration=[batch()])
    before = qat.state_dict()
    with pytest.raises(InputError, match="made with another scheme or another network"):
        qat.load_state_dict(other.state_dict())
    with pytest.raises(InputError, match=r"no checkpoint of a QATCallback: format = None"):
        qat.load_state_dict({})
    assert qat.state_dict()["plan"] == before["plan"]


@pytest.mark.parametrize("form", ["tensor", "list", "dict", "function"])
def test_calibration_takes_batches_as_the_training_loop_has_them(everything: nn.Module, form: str) -> None:
    x, labels = batch()
    forms = {"tensor": x, "list": [x, labels], "dict": {"x": x, "labels": labels}, "function": {"picture": x}}
    read = (lambda given: (given["picture"],)) if form == "function" else None
    qat = QATCallback(everything, None, target="x86-vnni", calibration=[forms[form]], arguments=read)
    assert [args[0].shape for args in qat.examples] == [(1, 3, 12, 12)] * 8


def test_weights_below_eight_bits_start_where_their_error_is_least(scheme: QuantScheme) -> None:
    changed = with_formats(scheme, weights="int4", activations="uint4")
    assert (changed.weights.format.name, changed.weights.observer) == ("int4", "mse")
    assert (changed.activations.format.name, changed.activations.observer) == ("uint4", scheme.activations.observer)
    with pytest.raises(InputError, match="unknown number format 'int1'; there are: int2"):
        with_formats(scheme, weights="int1")


# --- what is refused, with the model left as it was ---


def refused(model: nn.Module, match: str, optimizer: torch.optim.Optimizer | None = None, **options: object) -> None:
    names, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    with pytest.raises(InputError, match=match):
        QATCallback(model, optimizer, **{"target": "x86-vnni", "calibration": [batch()], **options})
    assert list(model.state_dict()) == names
    assert [type(module) for module in model.modules()] == kinds
    if optimizer is not None:
        assert len(optimizer.param_groups) == 1


def test_data_parallel_is_refused(everything: nn.Module) -> None:
    message = "nn.DataParallel copies the model in every step; use DistributedDataParallel, one process a GPU"
    refused(nn.DataParallel(everything), f"^{re.escape(message)}$")


def test_a_wrapped_model_is_refused(everything: nn.Module) -> None:
    refused(torch.compile(everything, backend="eager"), r"^give the callback the model itself, before torch\.compile$")


def test_a_second_callback_is_refused(everything: nn.Module) -> None:
    QATCallback(everything, None, target="x86-vnni", calibration=[batch()])
    message = "a QATCallback is attached to this model already; call its finish() before another is attached"
    refused(everything, f"^{re.escape(message)}$")


def test_another_models_optimizer_is_refused(everything: nn.Module) -> None:
    message = "the optimizer has none of the model's parameters; make it from model.parameters()"
    refused(everything, f"^{re.escape(message)}$", optimizer_of(nn.Linear(2, 2)))


def test_a_scheduler_that_came_first_is_refused(everything: nn.Module) -> None:
    optimizer = optimizer_of(everything)
    torch.optim.lr_scheduler.StepLR(optimizer, 5)
    message = (
        "a learning-rate scheduler is on this optimizer already, and would not know the group of the scales; make the "
        "scheduler after the callback"
    )
    refused(everything, f"^{re.escape(message)}$", optimizer)


def test_a_scheduler_that_comes_later_moves_both_rates(everything: nn.Module) -> None:
    optimizer = optimizer_of(everything)
    qat = QATCallback(
        everything, optimizer, target="x86-vnni", calibration=[batch()], schedule=QATSchedule(scale_lr=3e-4)
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    one_step(qat, 0)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1.5e-3, 1.5e-4])


def test_target_and_scheme_are_one_choice(everything: nn.Module, scheme: QuantScheme) -> None:
    refused(everything, "either target or scheme", scheme=scheme)
    refused(everything, "either target or scheme", target=None)


def test_an_empty_loader_is_refused(everything: nn.Module) -> None:
    refused(everything, "the loader is empty", calibration=[])


def test_batches_of_unknown_form_are_refused(everything: nn.Module) -> None:
    refused(everything, r"cannot tell forward's arguments \(x\) from a batch of type int", calibration=[3])


def test_a_model_without_layers_to_quantize_is_refused(everything: nn.Module, scheme: QuantScheme) -> None:
    class Float(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x)

    refused(Float(), r"quantizes no layer of this model: .*no quantized 'layer_norm'")


def test_a_functional_batch_norm_behind_a_layer_is_refused() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n = self.norm
            return F.batch_norm(self.conv(x), n.running_mean, n.running_var, n.weight, n.bias, False)

    refused(Functional(), r"'batch_norm' in the model \(.*test_callback\.py:\d+\) is no batch norm module")


def test_state_that_is_quantized_is_refused() -> None:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.register_buffer("memory", torch.zeros(1, 3, 12, 12))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x + self.memory)
            self.memory.copy_(y)
            return y.mean((2, 3))

    refused(Remembering(), r"forward keeps state in \['memory'\]")


def test_a_nan_loss_stops_before_the_weights_are_touched(everything: nn.Module) -> None:
    optimizer = optimizer_of(everything)
    qat = QATCallback(everything, optimizer, target="x86-vnni", calibration=[batch()])
    one_step(qat, 0)
    before = {name: value.clone() for name, value in everything.state_dict().items()}
    x, labels = batch()
    everything.train()
    (F.cross_entropy(everything(x), labels) * float("nan")).backward()
    with pytest.raises(InputError, match=r"step 1: the gradient is NaN or infinite at \d+ of \d+ scales, such as"):
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in everything.state_dict().items())


def test_a_scale_that_runs_away_is_named(everything: nn.Module) -> None:
    qat = QATCallback(everything, optimizer_of(everything), target="x86-vnni", calibration=[batch()])
    name, quantizer = next(iter(qat.replay.parts.quantizers.named()))
    quantizer.log_ratio.data.fill_(-8.0)
    with pytest.raises(
        InputError, match=rf"step 1: the scale of {name.replace('$', '[$]')} is 0\.000335 times .*scale_lr"
    ):
        qat.on_step()


def test_an_artefact_without_exporter_is_refused_before_anything_is_taken_apart(
    everything: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(EXPORTERS), "names", lambda: ("onnx_qdq",))
    qat = QATCallback(everything, None, target="ethos-u85-1024", calibration=[batch()])
    with pytest.raises(InputError, match=r"reads tflite_int8, which has no exporter here \(there are: onnx_qdq\)"):
        qat.finish(tmp_path / "model.tflite")
    assert qat.replay.is_attached and not list(tmp_path.iterdir())
    qat.finish()


def test_a_model_that_has_changed_is_refused(everything: nn.Module) -> None:
    qat = QATCallback(everything, None, target="x86-vnni", calibration=[batch()])
    everything.shared = nn.Identity()
    with pytest.raises(InputError, match=r"changed since the callback was attached: it has no tensor shared"):
        qat.finish()


def test_the_targets_scheme_is_used(everything: nn.Module) -> None:
    qat = QATCallback(everything, None, target="h200", calibration=[batch()])
    assert qat.quant_plan.scheme.name == load_target("h200").scheme().name
    assert {spec.format.name for spec in qat.quant_plan.weights.values()} == {"float8_e4m3fn"}


def test_norms_that_shift_nothing_yet_learn_biases_that_the_artefact_keeps_as_codes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 4))
    optimizer = optimizer_of(model)
    inputs = torch.randn(4, 3, 12, 12)
    qat = QATCallback(model, optimizer, target="x86-vnni", calibration=[inputs])
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
        qat.on_step()
    artefact = qat.finish()
    layer = next(node for node in artefact.captured.graph.nodes if node.op == "conv2d")
    assert layer.name in artefact.plan.biases
    assert artefact.captured.graph.array(layer.tensors[2]).any()


def test_a_training_that_has_ended_is_not_ended_again(everything: nn.Module) -> None:
    qat = QATCallback(
        everything, torch.optim.SGD(everything.parameters(), lr=0.1), target="x86-vnni", calibration=[batch(4)[0]]
    )
    qat.finish()
    for name in ("on_step", "finish"):
        with pytest.raises(InputError, match=rf"{name}\(\) behind finish\(\): .* attach another QATCallback"):
            getattr(qat, name)()


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_taken_apart(
    everything: nn.Module, tmp_path: Path
) -> None:
    qat = QATCallback(
        everything, torch.optim.SGD(everything.parameters(), lr=0.1), target="x86-vnni", calibration=[batch(4)[0]]
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/model.onnx cannot be written .* give another path"):
        qat.finish(tmp_path / "file" / "model.onnx")
    with pytest.raises(InputError, match="is a folder; training is as it was"):
        qat.finish(tmp_path)
    qat.finish(tmp_path / "new" / "model.onnx")
    assert (tmp_path / "new" / "model.onnx").exists()
