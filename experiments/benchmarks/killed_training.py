"""A training that is killed: it saves after every few steps, and goes on from what it finds.

One process loads the libraries and forks a child for each life, so that fifty lives cost fifty trainings and not fifty
imports. `python -m …killed_training FOLDER LIVES SEED` prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from bitwright.qat import QATCallback, QATSchedule
from bitwright.qat.schedule import Freezing, Ramp

SAVE_EVERY = 2


@dataclass(kw_only=True)
class Tally:
    """What was seen over all lives.

    Attributes:
        kills: lives that ended by `kill -9`.
        inside: kills that fell while a checkpoint was being written.
        broken: checkpoints that could not be read after a kill.
        steps: of the whole training.
    """

    kills: int = 0
    inside: int = 0
    broken: int = 0
    steps: int = 0


def train(folder: Path, steps: int) -> None:
    """Trains to a step; each step's loss is appended to a log, so that nothing is lost with the process."""
    torch.manual_seed(0)
    model, batches = _network(), _batches()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = QATSchedule(
        freeze_batch_norm_after=steps // 2, freezing=Freezing(threshold=Ramp(first=0.3, last=0.02, end=steps))
    )
    qat = QATCallback(model, optimizer, target="x86-vnni", weights="int4", calibration=batches, schedule=schedule)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if (folder / "at.pt").exists():
        qat.load(folder / "at.pt", scheduler=scheduler)
    with (folder / "log").open("a", buffering=1) as log:
        log.write("begins\n")
        while qat.step < steps:
            model.train()
            x, labels = batches[int(torch.randint(len(batches), ()))]  # the order is drawn, and goes on where it was
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x + 0.1 * torch.randn_like(x)), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            log.write(f"{qat.step} {float(loss.item()).hex()}\n")
            if qat.step % SAVE_EVERY == 0:
                log.write("saving\n")
                qat.save(folder / "at.pt", scheduler=scheduler)
                log.write("saved\n")
    qat.finish(folder / "model.onnx")
    torch.save(model.state_dict(), folder / "model.pt")


def _load_libraries() -> None:
    """What a first attachment imports, for all children; no gradient is computed before they are forked."""
    QATCallback(_network(), None, target="x86-vnni", calibration=_batches()).finish()


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def _batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 5, (8, 32), generator=draw)
    return [(torch.randn(32, 3, 12, 12, generator=draw) + row.reshape(-1, 1, 1, 1) / 3, row) for row in labels]


def life(folder: Path, steps: int, lives_s: float | None) -> bool:
    """One life in a child of this process, killed after some seconds unless it is done by then; says whether it was.

    Seconds count from its first step, so that the kill falls into the training.
    """
    child = os.fork()
    if not child:
        try:
            train(folder, steps)
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    begins = _count(folder, "begins")
    while lives_s is not None and _count(folder, "begins") == begins and os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(0.005)
    if lives_s is not None:
        time.sleep(lives_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"a life ended with {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status)


def _count(folder: Path, word: str) -> int:
    log = folder / "log"
    return log.read_text().split("\n").count(word) if log.exists() else 0


def killed(folder: Path, steps: int, kills: int, seed: int, step_s: float) -> Tally:
    """Trains through so many kills, then to the end.

    Args:
        folder: where checkpoints, the log and the results lie.
        steps: of the whole training.
        kills: how often it is killed.
        seed: of the moments.
        step_s: what a step takes, seconds; a life has from none to a few of them.
    """
    draw, tally = random.Random(seed), Tally()
    while tally.kills < kills:
        if not life(folder, steps, draw.uniform(0.0, 2.5 * SAVE_EVERY) * step_s):
            raise RuntimeError(f"the training ended after {tally.kills} kills; give it more steps than {steps}")
        tally.kills += 1
        lines = (folder / "log").read_text().split("\n")
        tally.inside += [line for line in lines if line in ("saving", "saved")][-1:] == ["saving"]
        tally.broken += not _is_whole(folder / "at.pt")
    life(folder, steps, None)
    tally.steps = steps
    return tally


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return True
    try:
        torch.load(path, weights_only=True)
    except Exception:  # whatever it is, the checkpoint cannot be read
        return False
    return True


def losses(folder: Path) -> dict[int, set[str]]:
    """Every loss that any life had at a step; one each if they all trained alike."""
    table: dict[int, set[str]] = {}
    for line in (folder / "log").read_text().split("\n"):
        words = line.split()
        if len(words) == 2 and words[0].isdigit():
            table.setdefault(int(words[0]), set()).add(words[1])
    return table


def main(folder: Path, steps: int, kills: int, seed: int) -> dict[str, Any]:
    """The undisturbed training, the killed one, and how they compare."""
    torch.set_num_threads(1)
    _load_libraries()
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    began = time.perf_counter()
    life(folder / "whole", steps, None)
    tally = killed(folder / "killed", steps, kills, seed, (time.perf_counter() - began) / steps)
    one, other = (torch.load(folder / name / "model.pt", weights_only=True) for name in ("whole", "killed"))
    same = all(torch.equal(value, other[name]) for name, value in one.items())
    files = [(folder / name / "model.onnx").read_bytes() for name in ("whole", "killed")]
    expected = losses(folder / "whole")
    return {
        **asdict(tally),
        "equal": same and files[0] == files[1],
        "steps that any life trained otherwise": sum(
            found != expected.get(step) for step, found in losses(folder / "killed").items()
        ),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *(int(number) for number in sys.argv[2:]))))
