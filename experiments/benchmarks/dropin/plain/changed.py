"""The loop of PyTorch's quickstart, with the checkpoint of 'Saving and Loading a General Checkpoint'."""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bitwright.qat import QATCallback

folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(labels))
train_dataloader = DataLoader(data, batch_size=64)

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(256, 10),
)
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
qat = QATCallback(model, optimizer, target="x86-vnni", calibration=train_dataloader)
first = 0
if (folder / "model.tar").exists():
    checkpoint = torch.load(folder / "model.tar", weights_only=True)
    model.load_state_dict(checkpoint["model_state_dict"])
    optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    first = checkpoint["epoch"]

for epoch in range(first, epochs):
    model.train()
    for X, y in train_dataloader:
        pred = model(X)
        loss = loss_fn(pred, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save(
        {
            "epoch": epoch + 1,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
        },
        folder / "model.tar",
    )
    print(f"epoch {epoch + 1}: loss {loss.item():.4f}")
qat.finish(folder / "model.onnx")
