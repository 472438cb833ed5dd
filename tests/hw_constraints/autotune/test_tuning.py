"""The whole way on a small network and a real runtime, and what is delivered when the tuned file is slower."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bitwright.hw_constraints.autotune import Budget, autotune, laboratory, tuning
from bitwright.hw_constraints.autotune.placements import Placements
from bitwright.quant.errors import InputError


def tune(candidates, samples, out: Path, **options):
    return autotune(
        candidates.quantized, candidates.reference, runtime="onnxruntime", search_samples=samples(6, 21),
        held_out=samples(6, 22), out=out, **{"budget": Budget(tries=3), **options},
    )  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    """Short measurements: these tests are not about times."""
    short = laboratory.Effort(processes=2, half_width=1.0, seconds=0.05)
    monkeypatch.setattr(tuning, "_FINAL", short)
    monkeypatch.setattr("bitwright.hw_constraints.autotune.search._HEATS", (short,))
    monkeypatch.setattr("bitwright.hw_constraints.autotune.search._CONFIRM", short)


def test_an_artefact_with_its_provenance_record_and_result(candidates, samples, tmp_path, quick):
    out = tmp_path / "out"
    tuned = tune(candidates, samples, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "result.json", "tries.jsonl", "tuned.onnx", "tuned.provenance.json",
    ]  # fmt: skip
    result = json.loads((out / "result.json").read_text())
    assert result["choice"] == tuned.choice in ("tuned", "full int8", "float")
    assert result["tries"] == 3
    tries = [json.loads(line) for line in (out / "tries.jsonl").read_text().splitlines()]
    assert [each["try"] for each in tries if "try" in each] == [1, 2, 3]
    for sample in samples(3, 23):
        (found,) = ort.InferenceSession(str(tuned.file)).run(None, sample)
        simulated = candidates.network(tuned.decision).run(*map(_tensor, sample.values()))
        assert np.abs(found - simulated.numpy()).max() < 0.1 * np.abs(found).max()


def _tensor(array):
    import torch

    return torch.from_numpy(array)


def test_called_again_it_measures_nothing(candidates, samples, tmp_path, quick, monkeypatch):
    first = tune(candidates, samples, tmp_path)

    def refuse(*args, **kwargs):
        raise AssertionError("measured again")

    monkeypatch.setattr(laboratory, "measure_placements", refuse)
    again = tune(candidates, samples, tmp_path)
    assert again.to_json() == first.to_json()


@pytest.mark.parametrize(
    ("times", "choice"),
    [
        ({"float": 100, "full": 80, "tuned": 70}, "tuned"),
        ({"float": 100, "full": 80, "tuned": 81}, "tuned"),  # within 3 %
        ({"float": 100, "full": 80, "tuned": 85}, "full int8"),
        ({"float": 60, "full": 80, "tuned": 70}, "float"),
    ],
)
def test_what_is_delivered_is_never_slower(candidates, samples, tmp_path, quick, monkeypatch, times, choice):
    """The search's races all say that the candidates are faster; the last measurement says what it says."""

    def measure(files, **options):
        names = list(files)
        if names[0] == "float":
            given = dict(zip(names, times.values(), strict=True))
        else:
            given = {name: 100.0 - 10 * bool(place) - place for place, name in enumerate(names)}
        noise = np.random.default_rng(0)
        return Placements(
            times_us=tuple({name: list(us * noise.normal(1, 1e-4, 20)) for name, us in given.items()} for _ in range(4))
        )

    monkeypatch.setattr(laboratory, "measure_placements", measure)
    tuned = tune(candidates, samples, tmp_path)
    assert tuned.choice == choice
    assert all(ratio.high <= tuning.NEVER_SLOWER for ratio in tuned.against.values())
    is_coded = b"QuantizeLinear" in tuned.file.read_bytes()
    assert is_coded is (choice != "float")
    assert bool(tuned.why) is (choice != "tuned")


def test_the_folder_of_other_data_is_refused_and_nothing_in_it_lost(candidates, samples, tmp_path, quick):
    tune(candidates, samples, tmp_path)
    before = (tmp_path / "tries.jsonl").read_bytes()
    with pytest.raises(InputError, match=re.escape("is the record of another search (network = ")):
        tune(candidates, lambda count, seed: samples(count, seed + 1), tmp_path)
    assert (tmp_path / "tries.jsonl").read_bytes() == before
    assert (tmp_path / "tuned.onnx").is_file()


def test_no_data_is_refused(candidates, tmp_path):
    with pytest.raises(InputError, match="needs samples to search with and others to check its result with"):
        tune(candidates, lambda count, seed: [], tmp_path)
