from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from bitwright.qat import QATSchedule
from bitwright.qat.schedule import Freezing, Ramp

from .conftest import batch

transformers = pytest.importorskip("transformers", reason="needs: pip install 'bitwright[transformers]'")
pytest.importorskip("accelerate", reason="needs: pip install 'bitwright[transformers]'")

from bitwright.qat.adapters.hf import QATTrainerCallback  # noqa: E402 - behind the skip

FREEZING = Freezing(threshold=Ramp(first=0.2, last=0.02, end=8), momentum=0.1)


class Pictures(Dataset):
    def __init__(self) -> None:
        self.pictures, self.labels = batch(64)
        self.pictures = self.pictures.repeat_interleave(3, 2).repeat_interleave(3, 3)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"labels": int(self.labels[index]), "pixel_values": self.pictures[index]}


def network() -> Any:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    return transformers.ResNetForImageClassification(config)


def trainer(folder: Path, epochs: int, callback: QATTrainerCallback, **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        save_strategy="epoch",
        lr_scheduler_type="constant",
        learning_rate=1e-3,
        per_device_train_batch_size=16,
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    return transformers.Trainer(network(), arguments, train_dataset=Pictures(), callbacks=[callback])


@pytest.mark.parametrize("freezing", [FREEZING, pytest.param(None, marks=pytest.mark.slow)])
def test_training_resumes_to_the_last_bit_and_writes_the_artefact(tmp_path: Path, freezing: Freezing | None) -> None:
    options = {"target": "x86-vnni", "schedule": QATSchedule(freeze_batch_norm_after=6, freezing=freezing)}
    options["calibration"] = Pictures()
    whole = trainer(tmp_path / "whole", 3, QATTrainerCallback(path=tmp_path / "whole.onnx", **options))
    whole.train()
    trainer(tmp_path / "cut", 2, QATTrainerCallback(**options)).train()
    assert (tmp_path / "cut" / "checkpoint-8" / "bitwright_qat.pt").exists() == (freezing is not None)
    callback = QATTrainerCallback(path=tmp_path / "resumed.onnx", **options)
    resumed = trainer(tmp_path / "cut", 3, callback)
    resumed.train(resume_from_checkpoint=True)
    assert callback.qat is None
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert (tmp_path / "whole.onnx").read_bytes() == (tmp_path / "resumed.onnx").read_bytes()


def test_steps_are_optimizer_steps_and_scales_learn(tmp_path: Path) -> None:
    batches = [{"pixel_values": Pictures().pictures[:8]}]
    callback = QATTrainerCallback(target="x86-vnni", calibration=batches)
    trainer(tmp_path, 2, callback, gradient_accumulation_steps=2, bf16=True).train()
    assert callback.qat is not None and callback.qat.step == 4
    assert all(bool(q.log_ratio.any()) for _, q in callback.qat.replay.parts.quantizers.named())
    callback.qat.finish(tmp_path / "model.onnx")
