"""The rows of quantization-aware training: scores as the product counts them, intervals, crops that come again."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bitwright.experiments.benchmarks.distilled_mobilenet import Photographs, Settings, mixed
from bitwright.experiments.benchmarks.records import Record
from bitwright.experiments.benchmarks.rows import qat_accuracy, qat_sparsity
from bitwright.experiments.benchmarks.rows.qat_accuracy import _interval, _records


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for path, size in zip(paths, [(256, 320), (320, 256), (300, 400), (256, 256)], strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return paths


def test_a_step_has_the_same_crops_when_it_comes_again(photographs: list[Path]) -> None:
    settings = Settings(depthwise_int8=True, batch=3)
    pictures = Photographs(photographs, settings)
    first, again, other = pictures.batch(5), Photographs(photographs, settings).batch(5), pictures.batch(6)
    assert first.shape == (3, 3, 224, 224) and torch.equal(first, again) and not torch.equal(first, other)
    # Noise of all grey levels, normalised by ImageNet's mean and deviation: within what black and white become.
    assert float(first.min()) > -2.2 and float(first.max()) < 2.7


def test_rounding_is_given_photographs_their_mirror_images_and_crops(photographs: list[Path]) -> None:
    images = torch.rand(4, 3, 224, 224)
    once = list(Photographs(photographs, Settings(depthwise_int8=True)).views(images))
    assert torch.equal(torch.cat(once), images)
    thrice = torch.cat(list(Photographs(photographs, Settings(depthwise_int8=True, views=3)).views(images)))
    assert thrice.shape == (12, 3, 224, 224) and torch.equal(thrice[:4], images)
    assert torch.equal(thrice[4:8, ..., 0], images[..., -1]) and torch.equal(thrice[4:8].flip(3), images)
    assert float(thrice[8:].min()) > -2.2 and float(thrice[8:].max()) < 2.7 and not torch.equal(thrice[8:], images)


def test_rates_rise_and_fall_to_nothing() -> None:
    settings = Settings(depthwise_int8=False, steps=1000)
    factors = [settings.factor(step) for step in range(1000)]
    assert factors[0] < 0.03 and max(factors) > 0.95 and factors[-1] < 1e-4
    assert all(a >= b for a, b in itertools.pairwise(factors[60:]))


def test_intervals_are_students() -> None:
    from scipy import stats

    values = np.array([1.0, 2.5, 2.0])
    wanted = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert _interval(values) == pytest.approx(wanted, rel=1e-3)


def test_ours_is_paired_with_the_best_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Contest:
        subject = qat_accuracy.SUBJECTS[0]

        def float_score(self) -> float:
            return 97.0

        def rate(self, side: str) -> float:
            return 1e-3

    scores = {
        "bitwright": [96.5, 96.0, 97.0],
        "brevitas": [96.0, 96.0, 96.0],
        "torchao": [90.0] * 3,
        "modelopt": [0.0] * 3,
    }
    contest: Any = Contest()
    over, drop = (each for each in _records(contest, "W4A4", scores, {}))
    assert isinstance(over, Record) and over.value == pytest.approx(0.5) and over.holds is True
    assert drop.value == pytest.approx(0.5) and drop.reach == "≤ 1" and drop.holds is True
    worse = {**scores, "torchao": [99.0] * 3}
    over, _ = (each for each in _records(contest, "W4A4", worse, {}))
    assert over.value == pytest.approx(-2.5) and over.holds is False


def test_mixed_photographs_are_blends_and_rectangles_of_the_batchs_own() -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 10).contiguous()
    assert torch.equal(mixed(images, 0.0, np.random.default_rng(0)), images)
    blends = mixed(images, 1.0, np.random.default_rng(0))
    # Of a and 3 - a, by a share: where the rectangle is the share is the other's, so both mean the same of the pair.
    assert torch.allclose(blends + blends.flip(0), torch.full_like(images, 3.0))
    values = torch.unique(blends[0])
    assert len(values) == 2 and 0.6 - 1e-6 <= float(values.min()) <= float(values.max()) <= 2.4 + 1e-6
    inside = (blends[0, 0] != blends[0, 0, 0, 0]).float().mean()
    assert 0.3 * 0.3 * 0.6 < float(min(inside, 1 - inside)) <= 0.5
    assert torch.equal(blends, mixed(images, 1.0, np.random.default_rng(0)))


def test_sparse_networks_are_paired_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"bitwright": (98.0, 99.0, 97.0), "modelopt": (99.0, 98.0, 98.5)}

    class Measured:
        def latency(self, name: str) -> Any:
            assert name == "whole"
            return SimpleNamespace(median_us=384.6)

    class Contest:
        contest = SimpleNamespace(float_score=lambda: 99.2)

        def __init__(self, bench: Any) -> None:
            pass

        def best(self, side: str, variant: str, seeds: tuple[int, ...]) -> list[Any]:
            assert variant == "2:4"
            return [{"test": scores[side][seed], "zeros": 0.4987, "rate": 1e-3} for seed in seeds]

        def whole_shapes(self) -> dict[str, list[int]]:
            return {}

        def file(self, shapes: dict[str, list[int]], name: str) -> Path:
            return Path(name)

        def measured(self, files: dict[str, Path], seconds: float) -> Measured:
            assert files == {"whole": Path("whole")} and seconds > 0
            return Measured()

    monkeypatch.setattr(qat_sparsity, "SparsityContest", Contest)
    bench: Any = None
    (found,) = qat_sparsity.run(bench)
    assert found.row == "qat_sparsity.2_4.over_modelopt" and found.holds is False
    assert found.value == pytest.approx(-0.5) and found.spread == pytest.approx(_interval(np.array([-1.0, 1.0, -1.5])))
    assert found.table[0] == {"who": "float, whole; latency of its W8A8", "top1 %": "99.20", "measured us": "385"}
    assert found.table[1]["top1 %"] == "98.00, 99.00, 97.00" and found.table[1]["zeros"] == "0.499"
    scores["bitwright"] = scores["modelopt"]
    (found,) = qat_sparsity.run(bench)
    assert found.value == 0 and found.holds is True
