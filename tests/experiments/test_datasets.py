import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bitwright.experiments.datasets import Data, Split
from bitwright.experiments.open_data import open_data
from bitwright.experiments.recipe_data import DataSection
from bitwright.quant.errors import InputError


def opened(**settings: Any) -> Data:
    return open_data(DataSection.model_validate(settings))


def test_digits_are_the_real_ones_and_always_the_same() -> None:
    data = opened(kind="digits", size=16)
    assert data.splits == {Split.TRAIN: 1300, Split.CALIBRATE: 200, Split.EVALUATE: 497}
    batches = [list(data.loader(Split.EVALUATE, 100, None)) for _ in range(2)]
    images, labels = (torch.cat([batch[part] for batch in batches[0]]) for part in (0, 1))
    assert images.shape == (497, 3, 16, 16) and images.dtype == torch.float32
    assert images.min() >= -1 and images.max() <= 1
    assert sorted(labels.unique().tolist()) == list(range(10))
    assert all(torch.equal(a, b) for a, b in zip(*[[batch[0] for batch in each] for each in batches], strict=True))


def test_digits_that_are_scored_are_not_trained_on() -> None:
    data = opened(kind="digits", size=8)
    trained = {image.numpy().tobytes() for batch, _ in data.loader(Split.TRAIN, 100, None) for image in batch}
    scored = {image.numpy().tobytes() for batch, _ in data.loader(Split.EVALUATE, 100, None) for image in batch}
    assert not trained & scored


def test_a_seed_shuffles_and_repeats() -> None:
    data = opened(kind="digits", size=8)
    order = [next(iter(data.loader(Split.TRAIN, 50, seed)))[1].tolist() for seed in (None, 1, 1, 2)]
    assert order[1] == order[2] and order[1] != order[0] and order[1] != order[3]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes; the red channel of each picture is its number in sorted order."""
    for number, (label, name) in enumerate([("cat", "a.png"), ("cat", "b.png"), ("dog", "c.png"), ("dog", "d.png")]):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.new("RGB", (40, 20), (number, 0, 0)).save(tmp_path / label / name)
    return tmp_path


def folder(root: Path, **settings: Any) -> Data:
    plain = {"mean": [0, 0, 0], "std": [1, 1, 1], "size": 8, "resize": 10, "calibration": 2}
    return opened(kind="image_folder", root=str(root), **{**plain, **settings})


def numbers(data: Data, split: Split) -> list[int]:
    return [round(float(x[0, 0, 0]) * 255) for batch, _ in data.loader(split, 3, None) for x in batch]


@pytest.mark.parametrize(("choose", "calibrating"), [("first", [0, 1]), ("spread", [0, 2])])
def test_pictures_come_in_sorted_order_and_calibration_ones_are_not_scored(
    pictures: Path, choose: str, calibrating: list[int]
) -> None:
    data = folder(pictures, choose=choose)
    assert numbers(data, Split.CALIBRATE) == calibrating
    assert numbers(data, Split.EVALUATE) == [n for n in range(4) if n not in calibrating]
    (images, labels), *_ = data.loader(Split.CALIBRATE, 2, None)
    assert images.shape == (2, 3, 8, 8)
    assert labels.tolist() == ([0, 0] if choose == "first" else [0, 1])
    assert data.classes == 2


def test_an_unreadable_picture_is_named_and_skipped_only_if_asked(pictures: Path) -> None:
    broken = pictures / "dog" / "d.png"
    broken.write_bytes(broken.read_bytes()[:30])
    message = (
        f"^{re.escape(str(broken))}: not a readable picture .*; mend or remove it, or set data.on_unreadable: skip$"
    )
    with pytest.raises(InputError, match=message):
        numbers(folder(pictures), Split.EVALUATE)
    data = folder(pictures, on_unreadable="skip")
    assert numbers(data, Split.EVALUATE) == [1]
    assert len(data.notes) == 1 and data.notes[0].startswith(f"skipped {broken}: not a readable picture")


def test_folders_without_pictures_or_with_too_few(pictures: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=rf"^{empty}: no pictures found; expected {empty}/CLASS/\*.jpg"):
        folder(empty)
    with pytest.raises(
        InputError, match=r"has 4 pictures and data.calibration = 9 takes them all; leave some to score$"
    ):
        folder(pictures, calibration=9)
    with pytest.raises(InputError, match=r"^data kind 'image_folder' needs data.train_root to train on$"):
        folder(pictures).loader(Split.TRAIN, 1, 0)


def test_the_fingerprint_follows_the_files(pictures: Path) -> None:
    before = folder(pictures).fingerprint
    assert folder(pictures).fingerprint == before
    Image.new("RGB", (30, 30)).save(pictures / "cat" / "z.png")
    assert folder(pictures).fingerprint != before


@pytest.fixture
def roads(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (12, 8), (number, 0, 0)).save(tmp_path / split / "images" / f"{number}.png")
            labels = np.full((8, 12), number % 2, np.uint8)
            labels[0, 0] = 11
            Image.fromarray(labels).save(tmp_path / split / "labels" / f"{number}.png")
    return tmp_path


def road_data(root: Path, **settings: Any) -> Data:
    return opened(
        kind="segmentation_folder", root=str(root), **{"classes": 2, "ignore_label": 11, "calibration": 2, **settings}
    )


def test_segmentation_pairs_pictures_and_labels(roads: Path) -> None:
    data = road_data(roads, size=[16, 24])
    assert data.splits == {Split.TRAIN: 3, Split.CALIBRATE: 2, Split.EVALUATE: 2}
    (images, labels), *_ = data.loader(Split.EVALUATE, 2, None)
    assert (images.shape, labels.shape, labels.dtype) == ((2, 3, 16, 24), (2, 16, 24), torch.int64)
    assert labels[0, 0, 0] == 11 and labels[1, 15, 23] == 1


def test_segmentation_folders_that_are_not_whole(roads: Path) -> None:
    with pytest.raises(InputError, match=rf"^{roads}/test: expected the folders images/ and labels/ in it$"):
        road_data(roads, evaluate="test")
    Image.fromarray(np.full((8, 12), 5, np.uint8)).save(roads / "val" / "labels" / "0.png")
    message = r"0.png: holds class 5; data.classes = 2 allows 0 to 1 and data.ignore_label = 11$"
    with pytest.raises(InputError, match=message):
        list(road_data(roads).loader(Split.EVALUATE, 1, None))
    Image.fromarray(np.full((4, 4), 1, np.uint8)).save(roads / "val" / "labels" / "0.png")
    with pytest.raises(InputError, match=r"0.png: labels are \[4, 4\], the picture is \[8, 12\]$"):
        list(road_data(roads).loader(Split.EVALUATE, 1, None))
    (roads / "val" / "labels" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1.png: its labels .*labels/1.png do not exist$"):
        road_data(roads)


ENTRY = """
class Stream:
    def __init__(self, batches): self.batches = batches
    def __iter__(self): return iter(self.batches)

def loaders(): return {"calibrate": [1, 2], "evaluate": Stream([3])}
def one(count=1): return [7] * count
def once(): return iter([1])
def number(): return 3
def keys(): return {"valid": []}
def empty(): return []
"""


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"data_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(ENTRY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_loaders_of_the_users_own(entry: str) -> None:
    data = opened(entry=f"{entry}:loaders")
    assert [list(data.loader(split, 1, None)) for split in (Split.CALIBRATE, Split.EVALUATE)] == [[1, 2], [3]]
    with pytest.raises(
        InputError, match=rf"^data.entry = '{entry}:loaders': returned no loader 'train'; it has \['calib"
    ):
        data.loader(Split.TRAIN, 1, None)
    both = opened(entry=f"{entry}:one", arguments={"count": 2})
    assert list(both.loader(Split.CALIBRATE, 1, None)) == list(both.loader(Split.EVALUATE, 1, None)) == [7, 7]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", r"returned int; expected an iterable of batches that can be read more than once, or a dict"),
        ("once", r"returned list_iterator, which can be read only once; return a list, a DataLoader or"),
        ("keys", r"returned a dict with the keys \['valid'\]; expected an iterable of batches"),
    ],
)
def test_entries_that_return_something_else(entry: str, function: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^data.entry = '{entry}:{function}': {message}"):
        opened(entry=f"{entry}:{function}")


def test_a_loader_that_gives_nothing(entry: str) -> None:
    with pytest.raises(InputError, match=r"empty': its loader gave no batch$"):
        list(opened(entry=f"{entry}:empty").loader(Split.CALIBRATE, 1, None))
