from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bitwright.experiments.benchmarks.latency import draw, network_files
from bitwright.experiments.benchmarks.latency.fresh import fresh
from bitwright.experiments.benchmarks.latency.network_files import NetworkFiles
from bitwright.experiments.benchmarks.latency.pool import DEVELOPING, Variant, pool
from bitwright.experiments.benchmarks.latency.predicted import tau_within_bands
from bitwright.experiments.benchmarks.latency.unseen import unseen
from bitwright.quant.errors import InputError


def test_the_pool_is_large_enough_and_its_names_differ() -> None:
    variants = [each for each in pool() if each.family not in DEVELOPING]
    assert len({each.name for each in pool()}) == len(pool())
    assert len(variants) >= 150 and len({each.family for each in variants}) >= 15


def test_only_pairs_within_a_band_count() -> None:
    exact = [(100.0, 90.0), (150.0, 140.0), (190.0, 170.0)]
    assert tau_within_bands(exact) == 1.0
    assert tau_within_bands([(100.0, 2.0), (150.0, 1.0)]) == -1.0
    # 100 and 1000 are told apart by anybody: whether they are in order does not count.
    assert tau_within_bands([(100.0, 5.0), (150.0, 6.0), (1000.0, 1.0)]) == 1.0
    assert math.isnan(tau_within_bands([(100.0, 1.0), (1000.0, 2.0)]))


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """All networks but one, without exporting any."""

    def files(variant: Variant) -> NetworkFiles:
        return NetworkFiles(files={}, reason="no translation" if variant.name == "test_resnet-96" else "")

    monkeypatch.setattr(draw, "network_files", files)


def _hashes(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    file = folder / "table_hashes.json"
    file.write_text(json.dumps({"onnxruntime": text, "openvino": "b"}))
    monkeypatch.setattr(draw, "HASHES", file)


@pytest.mark.usefixtures("exported")
def test_hashes_alone_decide_the_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hashes(tmp_path, monkeypatch, "a")
    first = [each.name for each in draw.drawn()]
    assert first == [each.name for each in draw.drawn()]
    _hashes(tmp_path, monkeypatch, "another")
    assert first != [each.name for each in draw.drawn()]


@pytest.mark.usefixtures("exported")
def test_every_family_comes_once_before_one_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hashes(tmp_path, monkeypatch, "a")
    families = [each.family for each in draw.drawn()]
    every = {each.family for each in fresh()}
    assert set(families[: len(every)]) == every
    assert "test_resnet-96" not in [each.name for each in draw.drawn(1000)]


def test_no_family_that_is_drawn_is_one_that_the_predictor_was_tuned_on() -> None:
    drawn, tuned = ({each.family for each in variants} for variants in (fresh(), (*pool(), *unseen())))
    assert not drawn & tuned
    assert len(drawn) >= 10 and len(fresh()) >= 60


def test_without_hashes_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "HASHES", tmp_path / "none.json")
    with pytest.raises(InputError, match=r"none\.json is missing: write down the tables' hashes and commit them"):
        draw.drawn()


def test_a_network_that_cannot_be_exported_keeps_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise RuntimeError("no such layer\nmore")

    monkeypatch.setattr(network_files, "folder", lambda: tmp_path)
    broken = Variant(name="broken", family="none", make=fail)  # type: ignore[arg-type]
    assert network_files.network_files(broken) == NetworkFiles(files={}, reason="RuntimeError: no such layer")
    assert network_files.is_made(broken)
