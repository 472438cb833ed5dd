"""The loop of PyTorch's tutorial 'Getting Started with Fully Sharded Data Parallel (FSDP2)', with its checkpoint."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from bitwright.qat import QATCallback

folder, epochs = Path(sys.argv[1]), int(sys.argv[2])


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.w1 = nn.Linear(dim, 4 * dim)
        self.gelu = nn.GELU()
        self.w2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return x + self.w2(self.gelu(self.w1(x)))


class Stack(nn.Module):
    def __init__(self, dim=16):
        super().__init__()
        self.layers = nn.ModuleList(Block(dim) for _ in range(3))
        self.output = nn.Linear(dim, 8)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.output(x)


dist.init_process_group("gloo")
torch.manual_seed(0)
model = Stack()
torch.manual_seed(dist.get_rank())
x = torch.randn(32, 16)
qat = QATCallback(model, None, target="x86-vnni", calibration=[x])
for layer in model.layers:
    fully_shard(layer)
fully_shard(model)
optim = torch.optim.Adam(model.parameters(), lr=1e-3)
path, first = folder / "model.checkpoint", 0
if path.exists():
    checkpoint = torch.load(path, weights_only=True)
    options = StateDictOptions(full_state_dict=True)
    states = {"model_state_dict": checkpoint["model"], "optim_state_dict": checkpoint["optim"]}
    set_state_dict(model, optim, **states, options=options)
    first = checkpoint["epoch"]

for epoch in range(first, epochs):
    loss = model(x).square().mean()
    loss.backward()
    optim.step()
    optim.zero_grad()
    model_state, optim_state = get_state_dict(model, optim, options=StateDictOptions(full_state_dict=True))
    if dist.get_rank() == 0:
        torch.save({"model": model_state, "optim": optim_state, "epoch": epoch + 1}, path)
    dist.barrier()

qat.finish(folder / "model.onnx")
dist.destroy_process_group()
