"""What the row of autotune says of made-up times, and the pictures that it makes."""

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.experiments.benchmarks import autotune_networks
from bitwright.experiments.benchmarks.rows import autotune as row
from bitwright.hw_constraints.autotune import Decision, Fidelity, Tuned
from bitwright.hw_constraints.autotune.placements import Placements


def case(times: dict[str, float], artefact: Fidelity, full: Fidelity) -> "row._Case":
    noise = np.random.default_rng(0)
    measured = Placements(
        times_us=tuple({name: list(us * noise.normal(1, 0.001, 20)) for name, us in times.items()} for _ in range(6))
    )
    tuned = Tuned(
        file=None, choice="tuned", why="", decision=Decision(floats=frozenset("ab")), sites=9, against={},
        tuned_against={}, median_us={}, fidelity={"artefact": artefact, "full int8": full}, tries=5, steps=2,
    )  # fmt: skip
    return row._Case(
        network="n", runtime="openvino", tuned=tuned, measured=measured, names=tuple(times), versions={"nncf": "1"}
    )


def fidelity(hits: int) -> Fidelity:
    return Fidelity(agreement=(1.0,) * hits + (0.0,) * (100 - hits), sqnr_db=(20.0,) * 100)


def test_the_tuned_file_is_held_against_the_fastest_of_the_others():
    found = case({"float": 100, "full int8": 80, "tuned": 70, "nncf x": 75}, fidelity(90), fidelity(90))
    assert found.best == "nncf x"
    against, agreement = row._records(found, [])
    assert against.unit == "× nncf x" and against.holds
    assert against.value == pytest.approx(70 / 75, rel=0.01)
    assert agreement.value == 0 and agreement.holds


def test_slower_or_less_faithful_is_missed():
    found = case({"float": 100, "full int8": 80, "tuned": 84}, fidelity(70), fidelity(90))
    against, agreement = row._records(found, [])
    assert against.holds is False
    assert agreement.value == pytest.approx(-20) and agreement.holds is False


def test_pictures_are_normalized_differ_by_seed_and_not_by_call():
    images = autotune_networks.pictures(4, 24, seed=1)
    assert images.shape == (4, 3, 24, 24) and images.dtype == np.float32
    np.testing.assert_allclose(images.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std((1, 2, 3)), 1, atol=1e-4)
    assert np.array_equal(images, autotune_networks.pictures(4, 24, seed=1))
    assert not np.array_equal(images, autotune_networks.pictures(4, 24, seed=2))


def test_batch_norms_settle_on_the_pictures():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    images = autotune_networks.pictures(16, 24, seed=1)
    autotune_networks._settle(model, images)
    assert not model.training
    results = model(torch.from_numpy(images))
    torch.testing.assert_close(results.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(results.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)
