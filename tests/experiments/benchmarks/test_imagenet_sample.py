import numpy as np
import pytest
from PIL import Image

from bitwright.experiments.benchmarks import places
from bitwright.experiments.benchmarks.imagenet_sample import (
    CALIBRATION_IMAGES,
    DEVIATION,
    MEAN,
    ImagenetSample,
    preprocess,
)
from bitwright.quant.errors import InputError


def test_preprocessing_normalises_and_crops_the_middle():
    pixels = np.zeros((256, 320, 3), np.uint8)
    pixels[16:240, 48:272] = 255
    array = preprocess(Image.fromarray(pixels))
    assert array.shape == (3, 224, 224)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, np.broadcast_to(((1 - MEAN) / DEVIATION)[:, None, None], array.shape), rtol=1e-6)


def test_preprocessing_brings_the_short_side_to_256():
    assert preprocess(Image.new("L", (100, 50))).shape == (3, 224, 224)


@pytest.fixture
def pictures(tmp_path):
    for index in range(CALIBRATION_IMAGES + 4):
        folder = tmp_path / "val" / f"n{index:08d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), (index % 256, 0, 0)).save(folder / "a.jpg")
    return tmp_path


def test_the_first_calibrate_and_the_rest_are_scored(pictures, tmp_path):
    sample = ImagenetSample(pictures, tmp_path / "cache")
    assert np.load(sample.calibration_file, mmap_mode="r").shape == (CALIBRATION_IMAGES, 3, 224, 224)
    assert np.load(sample.scored_file, mmap_mode="r").shape == (4, 3, 224, 224)
    assert sample.labels.tolist() == [CALIBRATION_IMAGES + extra for extra in range(4)]


def test_arrays_are_kept_between_runs(pictures, tmp_path):
    first = ImagenetSample(pictures, tmp_path / "cache").scored_file
    made = first.stat().st_mtime_ns
    assert ImagenetSample(pictures, tmp_path / "cache").scored_file.stat().st_mtime_ns == made


def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"0 pictures match val/\*/\*\.jpg; the protocol calibrates with 200"):
        _ = ImagenetSample(tmp_path, tmp_path).scored_file


def test_a_missing_root_says_how_to_give_one(monkeypatch):
    monkeypatch.delenv(places.SAMPLE_VARIABLE, raising=False)
    with pytest.raises(InputError, match=r"needs data\.root=FOLDER \(or \$BITWRIGHT_IMAGENET_SAMPLE\)"):
        places.imagenet_root(None)


def test_the_option_wins_over_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(places.SAMPLE_VARIABLE, "/nowhere")
    assert places.imagenet_root(str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match=r"data\.root = '/nowhere': no such folder"):
        places.imagenet_root(None)
