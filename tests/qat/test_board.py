from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.qat import Freezing, QATCallback, QATSchedule, Ramp, Stage
from bitwright.qat.board import Deployed, QATBoard
from bitwright.quant.errors import InputError

from .conftest import batch


class Notes:
    def __init__(self) -> None:
        self.scalars: dict[str, dict[int, float]] = {}
        self.histograms: dict[str, dict[int, torch.Tensor]] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.scalars.setdefault(tag, {})[global_step] = scalar_value

    def add_histogram(self, tag: str, values: torch.Tensor, global_step: int) -> None:
        self.histograms.setdefault(tag, {})[global_step] = values


def trained(model: nn.Module, writer: Any, **options: Any) -> QATCallback:
    schedule = QATSchedule(
        stages=(Stage(until=4, weights="int8"),), freezing=Freezing(threshold=Ramp(first=0.5, last=0.02, end=8))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    qat = QATCallback(model, optimizer, target="x86-vnni", weights="int4", calibration=[batch()], schedule=schedule)
    board = QATBoard(qat, writer, held_out=(batch(1, seed=90)[0],), every=2, **options)
    for step in range(8):
        x, labels = batch(seed=step)
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        qat.on_step()
        board.on_step()
    return qat


def test_every_figure_is_that_of_the_tensors(everything: nn.Module) -> None:
    notes = Notes()
    qat = trained(everything, notes, deployed=Deployed(latency_ms=lambda _: 1.5, every=2))
    assert set(notes.scalars["bits/stem.weight"].items()) == {(0, 8.0), (2, 8.0), (4, 4.0), (6, 4.0), (8, 4.0)}
    assert notes.scalars["qat/weights_bits"][0] == 8.0 and notes.scalars["qat/weights_bits"][8] == 4.0
    for weight in qat.scheduled.weights():
        scaled = (weight.parameter.detach() / weight.divisor).numpy()
        codes = np.clip(np.rint(scaled), -8, 7) if weight.grid.low == -8 else np.clip(np.rint(scaled), -7, 7)
        assert notes.scalars[f"zero_share/{weight.name}"][8] == pytest.approx(float((codes == 0).mean()))
        np.testing.assert_array_equal(notes.histograms[f"codes/{weight.name}"][8].numpy(), codes.ravel())
        assert f"oscillating/{weight.name}" in notes.scalars
    clipped = {tag: steps[8] for tag, steps in notes.scalars.items() if tag.startswith("clip_share/")}
    assert len(clipped) > 12 and all(0 <= share < 0.5 for share in clipped.values()) and max(clipped.values()) > 0
    assert notes.scalars["qat/deployed_sqnr_db"] == {0: 200.0, 4: 200.0, 8: 200.0}  # the simulation is exact
    assert notes.scalars["qat/deployed_latency_ms"][8] == 1.5


def test_looking_changes_nothing(everything: nn.Module) -> None:
    import copy

    twin = copy.deepcopy(everything)
    watched, alone = trained(everything, Notes()), trained(twin, Notes(), deployed=Deployed(every=1))
    for one, two in zip(watched.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_another_runtime_shows_its_distance(everything: nn.Module) -> None:
    notes = Notes()
    noisy = Deployed(run=lambda network, args: network.run(*args) * 1.01)
    trained(everything, notes, deployed=noisy)
    assert notes.scalars["qat/deployed_sqnr_db"][8] == pytest.approx(40.0, abs=0.01)  # 1 % is 40 dB


def test_tensorboard_reads_it(everything: nn.Module, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        trained(everything, writer)
    found = EventAccumulator(str(tmp_path)).Reload()
    assert {"qat/weights_oscillating", "step_size/stem.weight"} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("qat/weights_zero_share")] == [0, 2, 4, 6, 8]
    assert {"codes/stem.weight", "activation/$x"} <= set(found.Tags()["histograms"])
    (layout,) = found.Tensors("custom_scalars__config__")
    assert layout is not None


def test_every_is_a_number_of_steps(everything: nn.Module) -> None:
    qat = QATCallback(everything, None, target="x86-vnni", calibration=[batch()])
    with pytest.raises(InputError, match="every = 0; allowed: 1 and more steps"):
        QATBoard(qat, Notes(), held_out=(batch(1)[0],), every=0)
