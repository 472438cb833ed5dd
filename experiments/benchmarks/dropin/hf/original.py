"""The loop of transformers' guide 'Image classification': `Trainer` with `TrainingArguments`, resumed from its last."""

import sys

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from transformers import DefaultDataCollator, ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

folder, epochs = sys.argv[1], int(sys.argv[2])


class Digits(Dataset):
    def __init__(self):
        images, self.labels = load_digits(return_X_y=True)
        self.images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8).repeat_interleave(4, 2) / 16
        self.images = self.images.repeat_interleave(4, 3)

    def __len__(self):
        return 512

    def __getitem__(self, index):
        return {"pixel_values": self.images[index], "labels": int(self.labels[index])}


torch.manual_seed(0)
digits = Digits()
model = ResNetForImageClassification(
    ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=10
    )
)
training_args = TrainingArguments(
    output_dir=folder,
    remove_unused_columns=False,
    save_strategy="epoch",
    learning_rate=5e-3,
    per_device_train_batch_size=16,
    gradient_accumulation_steps=4,
    num_train_epochs=epochs,
    warmup_steps=0.1,
    logging_steps=10,
    report_to="none",
    use_cpu=True,
    disable_tqdm=True,
)
trainer = Trainer(
    model=model,
    args=training_args,
    data_collator=DefaultDataCollator(),
    train_dataset=digits,
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(folder))
