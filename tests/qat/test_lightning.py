from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bitwright.qat import QATSchedule
from bitwright.qat.schedule import Freezing, Ramp
from bitwright.quant.errors import InputError

from .conftest import Everything, batch, settled

lightning = pytest.importorskip("lightning", reason="needs: pip install 'bitwright[lightning]'")

from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint  # noqa: E402 - behind the skip

from bitwright.qat.adapters.lightning import QATLightning  # noqa: E402

FREEZING = Freezing(threshold=Ramp(first=0.2, last=0.02, end=8), momentum=0.1)
LOADER = DataLoader([batch(seed=seed) for seed in range(4)], batch_size=None)


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = settled(Everything())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, given: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        loss = F.cross_entropy(self(given[0]), given[1])
        self.log("loss", loss)
        return loss * float("nan") if getattr(self, "breaks", False) else loss

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[object]]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def trainer(folder: Path, epochs: int, *callbacks: object, **options: object) -> lightning.Trainer:
    return lightning.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(dirpath=folder, save_last=True), *callbacks],
        **options,
    )


@pytest.mark.parametrize("module", ["", pytest.param("net", marks=pytest.mark.slow)])
def test_fitting_resumes_to_the_last_bit_and_writes_the_artefact(tmp_path: Path, module: str) -> None:
    schedule = QATSchedule(freeze_batch_norm_after=6, freezing=FREEZING)
    options = {"target": "x86-vnni", "calibration": LOADER, "module": module, "schedule": schedule}
    whole = Classifier()
    trainer(tmp_path / "whole", 3, QATLightning(path=tmp_path / "whole.onnx", **options)).fit(whole, LOADER)
    trainer(tmp_path / "cut", 2, QATLightning(**options)).fit(Classifier(), LOADER)
    resumed = Classifier()
    callback = QATLightning(path=tmp_path / "resumed.onnx", **options)
    trainer(tmp_path / "cut", 3, callback).fit(resumed, LOADER, ckpt_path="last")
    assert callback.qat is None and list(resumed.state_dict()) == list(Classifier().state_dict())
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert (tmp_path / "whole.onnx").read_bytes() == (tmp_path / "resumed.onnx").read_bytes()


def test_steps_are_optimizer_steps_and_scales_learn(tmp_path: Path) -> None:
    callback = QATLightning(target="x86-vnni", calibration=LOADER)
    stopping = EarlyStopping("loss", patience=3)
    trainer(tmp_path, 2, callback, stopping, accumulate_grad_batches=2, precision="bf16-mixed").fit(
        Classifier(), LOADER
    )
    assert callback.qat is not None and callback.qat.step == 4
    assert all(bool(q.log_ratio.any()) for _, q in callback.qat.replay.parts.quantizers.named())
    callback.qat.finish(tmp_path / "model.onnx")


def test_a_nan_loss_stops_the_fit_before_the_weights_are_touched(tmp_path: Path) -> None:
    model = Classifier()
    model.breaks = True
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"step 0: the gradient is NaN or infinite .* it began in the loss"):
        trainer(tmp_path, 1, QATLightning(target="x86-vnni", calibration=LOADER)).fit(model, LOADER)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    callback = QATLightning(target="x86-vnni", calibration=LOADER, module="model")
    with pytest.raises(InputError, match=r"module = 'model' is no part of Classifier \(it has net\)"):
        trainer(tmp_path, 1, callback).fit(Classifier(), LOADER)


def test_a_module_without_forward_calls_is_refused(tmp_path: Path) -> None:
    class Parts(Classifier):
        forward = nn.Module.forward

    with pytest.raises((InputError, NotImplementedError)):
        trainer(tmp_path, 1, QATLightning(target="x86-vnni", calibration=LOADER)).fit(Parts(), LOADER)
