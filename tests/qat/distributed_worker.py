"""One of two processes that train together; started by `torchrun`, as the user would."""

import gc
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from bitwright.qat import Freezing, QATCallback, QATSchedule, Ramp, Stage
from bitwright.quant.errors import InputError
from tests.qat.conftest import Everything, batch, settled

STEPS, ROWS = 4, 32
OPTIONS: dict[str, dict[str, Any]] = {
    "lsq": {"method": "lsq", "schedule": QATSchedule(freeze_observers_after=0)},
    "ranges": {"method": "ranges"},
    "damped": {
        "weights": "int4",
        "schedule": QATSchedule(
            freeze_observers_after=0,
            dampening=Ramp(first=0.5, last=0.5),
            gradient_scaling=0.2,
            freezing=Freezing(threshold=Ramp(first=0.2, last=0.2), momentum=0.5),
        ),
    },
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return settled(Everything())


def attach(model: nn.Module, optimizer: torch.optim.Optimizer | None, data: list[Any], options: Any) -> QATCallback:
    return QATCallback(model, optimizer, target="x86-vnni", calibration=data, calibration_samples=2 * ROWS, **options)


def share(seed: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, labels = batch(2 * ROWS, seed=seed)
    return x[rank * ROWS : (rank + 1) * ROWS], labels[rank * ROWS : (rank + 1) * ROWS]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    model.train()
    optimizer.zero_grad()
    for x, labels in parts:
        (F.cross_entropy(model(x), labels) / len(parts)).backward()
    optimizer.step()


@cache
def alone(name: str) -> dict[str, torch.Tensor]:
    """One process that accumulates what the two have."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    attach(model, optimizer, [share(0, 0), share(0, 1)], OPTIONS[name])
    for number in range(STEPS):
        step(model, optimizer, [share(number, 0), share(number, 1)])
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def data_parallel(rank: int, folder: Path, name: str) -> None:
    model = network()
    for parameter in model.parameters() if rank else ():
        parameter.data.mul_(1.5)  # another initialization, as without a seed
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    qat = attach(model, optimizer, [share(0, rank)], OPTIONS[name])
    wrapped = DistributedDataParallel(model)
    for number in range(STEPS):
        step(wrapped, optimizer, [share(number, rank)])
    torch.save(model.state_dict(), folder / f"{name}_{rank}.pt")
    qat.finish(folder / f"{name}.onnx")


# --- models that train in regions ---


def lit(seed: int, rank: int, *, bright: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures that take one way through `EarlyExit`, all of them."""
    x, labels = share(seed, rank)
    return x - x.mean((1, 2, 3), keepdim=True) + (1.0 if bright else 0.2), labels


def calibration(rank: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Four of each way, so that the first samples reach every region."""
    return [(x[:4], labels[:4]) for x, labels in (lit(0, rank, bright=bright) for bright in (False, True))]


def several_ways(seed: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a step the two processes never take the same way, and each takes both in turn."""
    return lit(seed, rank, bright=(seed + rank) % 2 == 0)


def in_regions(kind: str) -> nn.Module:
    from tests.qat.test_regions import EarlyExit, Refining

    torch.manual_seed(0)
    return settled(EarlyExit()) if kind == "ways" else Refining()


def alone_in_regions(kind: str) -> dict[str, torch.Tensor]:
    """One process that accumulates what the two have, or what the two have in one batch where a loop counts by it."""
    model = in_regions(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    if kind == "ways":
        attach(model, optimizer, [*calibration(0), *calibration(1)], OPTIONS["ranges"])
    else:
        attach(model, optimizer, [share(0, 0), share(0, 1)], OPTIONS["lsq"])
    data = several_ways if kind == "ways" else share
    for number in range(STEPS):
        step(model, optimizer, [data(number, 0), data(number, 1)])
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def ways(rank: int, folder: Path) -> None:
    """DistributedDataParallel where the processes take different ways."""
    model = in_regions("ways")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    qat = attach(model, optimizer, calibration(rank), OPTIONS["ranges"])
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    for number in range(STEPS):
        step(wrapped, optimizer, [several_ways(number, rank)])
    torch.save(model.state_dict(), folder / f"ways_{rank}.pt")
    qat.finish(folder / "ways.onnx")


def loops(rank: int, folder: Path) -> None:
    """`fully_shard` of a model whose loop counts by the data: it gathers once, whatever the loop does."""
    model = in_regions("loops")
    qat = attach(model, None, [share(0, rank)], OPTIONS["lsq"])
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for number in range(STEPS):
        step(model, optimizer, [share(number, rank)])
    state = {name: getattr(tensor, "full_tensor", lambda t=tensor: t)() for name, tensor in model.state_dict().items()}
    torch.save(state, folder / f"loops_{rank}.pt")
    artefact = qat.finish(folder / "loops.onnx")
    torch.save(artefact.run(batch(1)[0]), folder / f"loops_run_{rank}.pt")


def unwrapped(rank: int, folder: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    attach(model, optimizer, [share(0, rank)], {})
    try:
        step(model, optimizer, [share(1, rank)])
    except InputError as error:
        (folder / f"unwrapped_{rank}.txt").write_text(str(error))


def shard(rank: int, options: Any) -> tuple[nn.Module, torch.optim.Optimizer, QATCallback]:
    model = network()
    qat = attach(model, None, [share(0, rank)], options)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model.head)
    fully_shard(model)
    return model, torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.0), qat


def sharded(rank: int, folder: Path, name: str, options: Any) -> None:
    """Trained half way, taken up by another model from its checkpoint, and deployed by that."""
    first, optimizer, qat = shard(rank, options)
    for number in range(STEPS // 2):
        step(first, optimizer, [share(number, rank)])
    held = get_state_dict(first, optimizer)
    remembered = qat.scheduled.state_dict()
    model, optimizer, qat = shard(rank, options)
    set_state_dict(model, optimizer, model_state_dict=held[0], optim_state_dict=held[1])
    qat.scheduled.load_state_dict(remembered, STEPS // 2)
    assert qat.step == STEPS // 2
    for number in range(STEPS // 2, STEPS):
        step(model, optimizer, [share(number, rank)])
    state = {name: getattr(tensor, "full_tensor", lambda t=tensor: t)() for name, tensor in model.state_dict().items()}
    torch.save(state, folder / f"{name}_{rank}.pt")
    artefact = qat.finish(folder / f"{name}.onnx")
    torch.save(artefact.run(batch(1)[0]), folder / f"{name}_run_{rank}.pt")
    assert not hasattr(model, "qat_quantizers")
    model.eval()(batch(1)[0])  # a sharded float network, as before
    try:
        attach(model, None, [share(0, rank)], {})
    except InputError as error:
        (folder / f"late_{rank}.txt").write_text(str(error))


def staged(rank: int, folder: Path) -> None:
    model, optimizer, _ = shard(
        rank, {"weights": "int4", "schedule": QATSchedule(stages=(Stage(until=1, weights="int8"),))}
    )
    try:
        step(model, optimizer, [share(1, rank)])
    except InputError as error:
        (folder / f"staged_{rank}.txt").write_text(str(error))


# What is tried each time, and what takes longer.
QUICK = {
    "lsq": lambda rank, folder: data_parallel(rank, folder, "lsq"),
    "unwrapped": unwrapped,
    "sharded": lambda rank, folder: sharded(rank, folder, "sharded", OPTIONS["lsq"]),
}
THOROUGH = {
    "ranges": lambda rank, folder: data_parallel(rank, folder, "ranges"),
    "damped": lambda rank, folder: data_parallel(rank, folder, "damped"),
    "sharded_damped": lambda rank, folder: sharded(rank, folder, "sharded_damped", OPTIONS["damped"]),
    "ways": ways,
    "loops": loops,
    "staged": staged,
}


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for name in names:
        ({**QUICK, **THOROUGH})[name](rank, folder)
    gc.collect()  # reducers and hooks hold the group, which must not outlive its threads
    dist.barrier()  # what the refused step has begun to gather arrives before the group ends
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
