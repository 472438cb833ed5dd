"""Networks that become smaller in loops of other libraries, and beside averaged copies of them."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from bitwright.qat import QATCallback
from bitwright.qat.sparsity import Pruning, Sparsity
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from tests.qat.sparsity.test_pruning import EXAMPLE, LABELS, PICTURES, macs, network


def pruning(model: nn.Module, optimizer: torch.optim.Optimizer, **options: object) -> Pruning:
    return Pruning(model, optimizer, example=EXAMPLE, cost=macs, target=0.5, end=4, every=2, multiple=4, **options)


def test_an_averaged_copy_becomes_as_small_and_goes_on_averaging() -> None:
    """Against the average over a network that had been small from the start: what is left is the same."""
    model = network()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    smaller = pruning(model, optimizer, copies=[ema.module])
    states: list[dict[str, torch.Tensor]] = []
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(PICTURES), LABELS).backward()
        optimizer.step()
        ema.update_parameters(model)
        smaller.on_step()
        states.append(copy.deepcopy(model.state_dict()))
    smaller.finish()
    assert macs(capture(ema.module, EXAMPLE).graph) == macs(capture(model, EXAMPLE).graph)
    small = [each for each in states if each["one.weight"].shape == states[-1]["one.weight"].shape]
    bias = ema.module.head.bias.detach()
    expected = states[0]["head.bias"]
    for each in states[1:]:
        expected = 0.5 * expected + 0.5 * each["head.bias"]
    torch.testing.assert_close(bias, expected)
    assert len(small) >= 2 and ema.module.one.weight.shape == model.one.weight.shape


def test_a_copy_of_something_else_is_refused() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    before = copy.deepcopy(model.state_dict())
    message = (
        "copies[0] is no copy of the model: it has no parameter stem.weight of shape [16, 3, 3, 3]; of an "
        "AveragedModel give its .module"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        pruning(model, optimizer, copies=[AveragedModel(model)])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not optimizer._optimizer_step_pre_hooks


def test_processes_that_train_together_take_no_channels_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.qat.sparsity.pruning.ranks", lambda: 2)
    model = network()
    message = (
        "2 processes train together, and what averages their gradients knows the shapes of the start; "
        "take channels out in one process, then train the smaller network on in several"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        pruning(model, torch.optim.SGD(model.parameters(), lr=1e-2))


def test_lightning_prunes_then_trains_in_low_precision(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="needs: pip install 'bitwright[lightning]'")
    from bitwright.qat.adapters.lightning import QATLightning, SmallerLightning

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, given: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(given[0]), given[1])

        def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[object]]:
            optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def fit(module: nn.Module, *callbacks: object, **options: object) -> None:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            default_root_dir=tmp_path, accelerator="cpu", enable_checkpointing=False, callbacks=[*callbacks],
            **quiet, **options,
        )  # fmt: skip
        trainer.fit(module, DataLoader([(PICTURES, LABELS)] * 4, batch_size=None))

    module = Classifier()
    smaller = SmallerLightning(pruning, module="net")
    fit(module, smaller, max_epochs=2, accumulate_grad_batches=2)  # eight batches, four steps
    assert smaller.report is not None and smaller.report.after <= 0.5 * smaller.report.before
    qat = QATLightning(target="x86-vnni", calibration=[PICTURES], module="net", path=tmp_path / "model.onnx")
    fit(module, qat, max_epochs=1)
    assert macs(capture(module.net, EXAMPLE).graph) == smaller.report.after
    assert (tmp_path / "model.onnx").exists()
    with pytest.raises(
        InputError, match=r"^SmallerLightning: module = 'body' is no part of Classifier \(it has net\)$"
    ):
        fit(module, SmallerLightning(pruning, module="body"), max_epochs=1)


def test_hugging_face_resumes_a_pattern_to_the_last_bit(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs: pip install 'bitwright[transformers]'")
    pytest.importorskip("accelerate", reason="needs: pip install 'bitwright[transformers]'")
    from bitwright.qat.adapters.hf import SmallerTrainerCallback
    from tests.qat.test_hf import trainer

    def smaller() -> SmallerTrainerCallback:
        return SmallerTrainerCallback(lambda model, optimizer: Sparsity(model, optimizer, end=3))

    whole, resumed = smaller(), smaller()
    first = trainer(tmp_path / "whole", 2, whole)
    first.train()
    trainer(tmp_path / "cut", 2, smaller(), max_steps=4).train()
    again = trainer(tmp_path / "cut", 2, resumed)
    again.train(resume_from_checkpoint=True)
    assert whole.report is not None and resumed.report == whole.report
    assert set(whole.report.zeros.values()) == {0.5}
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_callback_attaches_to_what_was_pruned_with_its_copy() -> None:
    model = network()
    ema = AveragedModel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    smaller = pruning(model, optimizer, copies=[ema.module])
    for _ in range(4):
        nn.functional.cross_entropy(model(PICTURES), LABELS).backward()
        optimizer.step()
        smaller.on_step()
    smaller.finish()
    qat = QATCallback(model, optimizer, target="x86-vnni", calibration=[PICTURES])
    ema = AveragedModel(model)
    nn.functional.cross_entropy(model.train()(PICTURES), LABELS).backward()
    optimizer.step()
    ema.update_parameters(model)
    model.load_state_dict(ema.module.state_dict())
    assert macs(qat.finish().captured.graph) == macs(capture(model, EXAMPLE).graph)


def test_one_at_a_time_makes_a_model_smaller() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    first = Sparsity(model, optimizer)
    before = copy.deepcopy(model.state_dict())
    message = "a Sparsity is attached to this model already; call its finish() before another is attached"
    for make in (Sparsity, pruning):
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            make(model, optimizer)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    first.finish()
    pruning(model, optimizer)


def test_a_model_in_low_precision_is_not_pruned() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    qat = QATCallback(model, optimizer, target="x86-vnni", calibration=[PICTURES])
    message = "a QATCallback is attached to this model already; call its finish() before another is attached"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        pruning(model, optimizer)
    qat.finish()
