import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

from bitwright.nas.supernet import load_supernet, train_supernet
from bitwright.nas.supernet.task import Batch
from bitwright.nas.supernet.training import _Training
from bitwright.quant.errors import InputError

STEPS = 18  # 3 passes of 6 batches


def _trained(tiny: ModuleType, folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    elastic = tiny.TinyElastic(dropout=0.1)
    train_supernet(elastic, tiny.TinyTask(), tiny.settings(**changes), folder)
    return elastic.largest.state_dict()


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_and_the_smallest_too(tiny: ModuleType, tmp_path: Path) -> None:
    elastic, task = tiny.TinyElastic(), tiny.TinyTask(steps=15, batch=32)
    train_supernet(elastic, task, tiny.settings(shrinking={}, epochs=4, checkpoint_every=100), tmp_path)
    from bitwright.nas.supernet import InheritedAccuracy

    accuracy = InheritedAccuracy(elastic=elastic, task=task, folder=tmp_path)
    assert accuracy(tiny.candidate()) > 0.7  # 4 classes: 0.25 by chance
    assert accuracy(tiny.candidate(4, 3, True)) > 0.4


@pytest.mark.parametrize("steps", [1, 4])
def test_trainings_of_few_steps_end(tiny: ModuleType, tmp_path: Path, steps: int) -> None:
    train_supernet(tiny.TinyElastic(), tiny.TinyTask(steps=steps), tiny.settings(epochs=1), tmp_path)
    load_supernet(tiny.TinyElastic(), tmp_path / "supernet.pt")


def test_the_same_training_gives_the_same_bits(tiny: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(1)
    once = _trained(tiny, tmp_path / "a")
    torch.manual_seed(2)  # what the caller draws from has no part in it
    assert _equal(once, _trained(tiny, tmp_path / "b"))
    assert not _equal(once, _trained(tiny, tmp_path / "c", seed=1))


def test_training_leaves_the_callers_random_numbers_alone(tiny: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    elastic = tiny.TinyElastic(dropout=0.1)
    train_supernet(elastic, tiny.TinyTask(), tiny.settings(), tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("stops", "every"),
    [((1, 6, 13), 4), pytest.param(range(STEPS), 1, marks=pytest.mark.slow)],
)
def test_stopped_before_a_step_it_goes_on_to_the_same_bits(
    tiny: ModuleType, tmp_path: Path, stops: Sequence[int], every: int
) -> None:
    whole = _trained(tiny, tmp_path / "whole")
    for stop in stops:
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(tiny.Killed):
            task = tiny.Deadly(lives=stop)
            train_supernet(tiny.TinyElastic(dropout=0.1), task, tiny.settings(checkpoint_every=every), folder)
        assert _equal(whole, _trained(tiny, folder, checkpoint_every=every)), f"stopped before step {stop}"


def test_stopped_while_it_writes_it_goes_on_to_the_same_bits(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _trained(tiny, tmp_path / "whole")
    written = []

    def replace(*_: object) -> None:
        if len(written) == 7:
            raise tiny.Killed
        written.append(True)
        real(*_)

    import os

    real = os.replace
    with monkeypatch.context() as patched, pytest.raises(tiny.Killed):
        patched.setattr(os, "replace", replace)
        _trained(tiny, tmp_path / "cut")
    assert _equal(whole, _trained(tiny, tmp_path / "cut"))


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_same_bits(tiny: ModuleType, tmp_path: Path) -> None:
    whole = _trained(tiny, tmp_path / "whole")
    for lives in (2, 7, 1):
        program = [sys.executable, tiny.__file__, str(tmp_path / "killed"), str(lives)]
        assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
    assert _equal(whole, _trained(tiny, tmp_path / "killed"))


def test_what_has_ended_is_read_and_not_trained_again(tiny: ModuleType, tmp_path: Path) -> None:
    whole = _trained(tiny, tmp_path)
    elastic, task = tiny.TinyElastic(seed=5), tiny.TinyTask()
    path = train_supernet(elastic, task, tiny.settings(), tmp_path)
    assert _equal(whole, elastic.largest.state_dict())
    assert task.seen == []
    other = tiny.TinyElastic(seed=6)
    load_supernet(other, path)
    assert _equal(whole, other.largest.state_dict())


def test_nan_is_refused_with_step_and_candidate_and_the_last_checkpoint_stays(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"supernet: step 4: the loss of candidate \(width 8, kernel 5, deep True, format int8\) became nan; "
        r"a smaller supernet.lr than 0.02 may help",
    ):
        train_supernet(tiny.TinyElastic(), tiny.TinyTask(poisoned=4), tiny.settings(), tmp_path)
    content = torch.load(tmp_path / "supernet.pt")
    assert content["step"] == 4
    assert all(bool(torch.isfinite(each).all()) for each in content["weights"].values())


def test_another_trainings_checkpoint_is_refused_by_what_differs(tiny: ModuleType, tmp_path: Path) -> None:
    _trained(tiny, tmp_path)
    with pytest.raises(InputError, match=r"supernet.pt: supernet.lr was 0.02 and is 0.01; give another folder"):
        _trained(tiny, tmp_path, lr=0.01)
    with pytest.raises(InputError, match=r'task: batch was "16" and is "8"'):
        train_supernet(tiny.TinyElastic(), tiny.TinyTask(batch=8), tiny.settings(), tmp_path)


def test_half_trained_weights_are_not_loaded(tiny: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(tiny.Killed):
        train_supernet(tiny.TinyElastic(), tiny.Deadly(lives=3), tiny.settings(), tmp_path)
    with pytest.raises(InputError, match="trained for 3 of 18 steps; train it to the end first"):
        load_supernet(tiny.TinyElastic(), tmp_path / "supernet.pt")


def test_a_task_that_miscounts_its_batches_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    class Short(tiny.TinyTask):
        def batches(self, seed: int):
            return iter(list(super().batches(seed))[:-1])

    with pytest.raises(InputError, match="pass 0 ended at step 5; the task says that passes have 6 batches"):
        train_supernet(tiny.TinyElastic(), Short(), tiny.settings(), tmp_path)


def test_curves_are_written(tiny: ModuleType, tmp_path: Path) -> None:
    class Curves(list):
        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            self.append((tag, scalar_value, global_step))

    curves = Curves()
    closed = tiny.settings(shrinking={"*": (0.5, 0.5)})
    train_supernet(tiny.TinyElastic(), tiny.TinyTask(), closed, tmp_path, writer=curves)
    steps = {tag: [step for name, _, step in curves if name == tag] for tag, _, _ in curves}
    assert steps["supernet/loss_largest"] == list(range(STEPS))
    assert steps["supernet/loss_smallest"] == list(range(9, STEPS))
    assert max(value for tag, value, _ in curves if tag == "supernet/lr") == pytest.approx(0.02, rel=0.01)


def test_long_trainings_of_two_seeds_share_no_pass(tiny: ModuleType, tmp_path: Path) -> None:
    class Noting(tiny.TinyTask):  # type: ignore[name-defined,misc]
        def batches(self, seed: int) -> Iterator[Batch]:
            seen.append(seed)
            yield from super().batches(seed)

    passes: list[list[int]] = []
    for seed in (0, 1):
        seen: list[int] = []
        settings = tiny.settings(epochs=1_002, shrinking={}, random=0, seed=seed, checkpoint_every=10_000)
        training = _Training(tiny.TinyElastic(), Noting(steps=1), settings, tmp_path / "supernet.pt")
        for _ in training.batches():
            training.step += 1
        passes.append(seen)
    assert [len(each) for each in passes] == [1_002, 1_002]
    assert not set(passes[0]) & set(passes[1])
