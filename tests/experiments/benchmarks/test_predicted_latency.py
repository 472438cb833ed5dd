from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from bitwright.experiments.benchmarks.latency import draw, network_files
from bitwright.experiments.benchmarks.latency.compact_draw import compact_draw
from bitwright.experiments.benchmarks.latency.fresh import fresh
from bitwright.experiments.benchmarks.latency.network_files import NetworkFiles
from bitwright.experiments.benchmarks.latency.pool import DEVELOPING, Variant, of_designs, pool
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
        return NetworkFiles(files={}, reason="no translation" if variant.name == "blaze-8x1-32" else "")

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
    assert "blaze-8x1-32" not in [each.name for each in draw.drawn(1000)]


def test_no_family_that_is_drawn_is_one_that_the_predictor_was_tuned_on() -> None:
    drawn, tuned = ({each.family for each in variants} for variants in (fresh(), draw.earlier()))
    assert tuned >= {each.family for each in (*pool(), *unseen(), *compact_draw())}
    assert not drawn & tuned
    assert len(drawn) >= 14 and len(fresh()) >= 100
    names = [each.name for each in (*fresh(), *draw.earlier())]
    assert len(names) == len(set(names))  # files and measured latencies are kept by name


def test_a_design_is_made_from_its_arguments_for_its_input_with_the_same_weights_each_time() -> None:
    (variant,) = of_designs({"wide": (torch.nn.Linear, [((1, 5), (5, 7))])})
    assert (variant.name, variant.family) == ("wide-5x7-5", "wide")
    (module, (x,)), (again, _) = variant.make(Path()), variant.make(Path())
    assert module(x).shape == (1, 7) and torch.equal(module(x), again(x))


_SHAPES = {
    "lane_rows-8x64x64-160": [(1, 26, 18, 4)],
    "range_doppler-8x16x16-16": [(1, 3, 32, 16)],
    "pillar_features-16x16x8x1-8": [(1, 18, 8, 8)],
    "occupancy-8x4-16": [(1, 5, 4, 16, 16)],
    "polylines-16x2-8": [(1, 16, 60)],
    "range_images-8-128": [(1, 4, 16, 128)],
    "traffic_signs-6x32-32": [(1, 43)],
    "anchor_heads-8x4-64": [(1, 4 * (64 + 16 + 4), 4), (1, 4 * (64 + 16 + 4), 4)],
    "key_points-8x1-64": [(1, 57, 8, 8)],
    "fast_depth-8x3x5-64": [(1, 1, 64, 64)],
    "stacked_flow-4-32": [(1, 2, 8, 8)],
    "inertial-4x3-64": [(1, 6)],
    "grasps-8-48": [(1, 1, 47, 47)] * 4,
    "impala-8x1x32-32": [(1, 15)],
    "vibration-8x3x1024-1024": [(1, 10)],
    "dense_policy-24x64x3-24": [(1, 12)],
    "floor_finder-8x1-48": [(1, 50, 1, 12)],
    "bilateral-8-64": [(1, 12, 8, 8)],
    "context_guided-16x1-32": [(1, 19, 8, 8)],
    "landmarks-8x1-32": [(1, 136)],
    "blaze-8x1-32": [(1, 34, 2, 2)],
    "block_attention-8x1-32": [(1, 10)],
    "omni_scale-16x1-32": [(1, 128)],
    "broadcasted-8x2-64": [(1, 12)],
    "coordinate_gates-16x2-32": [(1, 10)],
    "pyramid_attention-16x1-32": [(1, 10)],
    "latent_queries-32x4x2-32": [(1, 4, 48)],
}


def test_our_own_networks_of_the_draw_give_what_their_tasks_ask_for() -> None:
    of_name = {each.name: each for each in fresh()}
    for name, shapes in _SHAPES.items():
        module, inputs = of_name[name].make(Path())
        made = module(*inputs)
        assert [tuple(each.shape) for each in (made if isinstance(made, tuple) else (made,))] == shapes, name
    own = [each for each in fresh() if each.name.split("-")[0] == each.family]
    assert {each.family for each in own} == {name.split("-")[0] for name in _SHAPES}


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
