"""The toy of PyTorch's tutorial 'Getting Started with Distributed Data Parallel', by `torchrun`, with checkpoint."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel as DDP

from bitwright.qat import QATCallback

folder, epochs = Path(sys.argv[1]), int(sys.argv[2])


class ToyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.net1 = nn.Linear(10, 10)
        self.relu = nn.ReLU()
        self.net2 = nn.Linear(10, 5)

    def forward(self, x):
        return self.net2(self.relu(self.net1(x)))


dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(rank)
model = ToyModel()
inputs, labels = torch.randn(20, 10), torch.randn(20, 5)
qat = QATCallback(model, None, target="x86-vnni", calibration=[inputs])
ddp_model = DDP(model)
loss_fn = nn.MSELoss()
optimizer = optim.SGD(ddp_model.parameters(), lr=0.001)
checkpoint_path, first = folder / "model.checkpoint", 0
if checkpoint_path.exists():
    checkpoint = torch.load(checkpoint_path, weights_only=True)
    ddp_model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    first = checkpoint["epoch"]
dist.barrier()

for epoch in range(first, epochs):
    optimizer.zero_grad()
    outputs = ddp_model(inputs)
    loss_fn(outputs, labels).backward()
    optimizer.step()
    if rank == 0:
        state = {"model": ddp_model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        torch.save(state, checkpoint_path)

dist.barrier()
qat.finish(folder / "model.onnx")
dist.destroy_process_group()
