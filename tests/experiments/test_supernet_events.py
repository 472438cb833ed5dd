"""The curves of a supernet's training in TensorBoard, also where the training was cut."""

import os
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bitwright.experiments.supernet_events import copy_supernet_events, supernet_events


def write(supernet: Path, steps: range, loss: float) -> None:
    with supernet_events(supernet) as events:
        for step in steps:
            events.add_scalar("supernet/loss_largest", loss, step)


def test_a_training_that_goes_on_hides_what_the_cut_one_wrote_behind_its_checkpoint(tmp_path: Path) -> None:
    supernet = tmp_path / "run" / "search-0a" / "supernet"
    write(supernet, range(6), 2.0)
    write(supernet, range(4, 8), 1.0)  # the checkpoint was at step 4
    copy_supernet_events(tmp_path / "run", tmp_path / "board")
    read = EventAccumulator(str(tmp_path / "board" / "supernet")).Reload()
    curve = [(each.step, each.value) for each in read.Scalars("supernet/loss_largest")]
    assert curve == [*((step, 2.0) for step in range(4)), *((step, 1.0) for step in range(4, 8))]


def test_a_training_that_had_ended_leaves_no_file_and_the_latest_study_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "search-0a" / "supernet", range(0), 0.0)
    assert not (tmp_path / "search-0a").exists()
    copy_supernet_events(tmp_path, tmp_path / "board")
    assert not (tmp_path / "board").exists()
    for study, loss in {"search-0b": 3.0, "search-0a": 4.0}.items():
        write(tmp_path / study / "supernet", range(2), loss)
    os.utime(tmp_path / "search-0b" / "supernet" / "events", (0, 0))
    copy_supernet_events(tmp_path, tmp_path / "board")
    read = EventAccumulator(str(tmp_path / "board" / "supernet")).Reload()
    assert {each.value for each in read.Scalars("supernet/loss_largest")} == {4.0}
