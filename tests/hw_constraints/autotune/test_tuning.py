"""The whole way on a small network and a real runtime, and what is delivered when the tuned file is slower."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from bitwright.hw_constraints.autotune import Budget, autotune, final, laboratory
from bitwright.hw_constraints.autotune.decision import Decision
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
    monkeypatch.setattr(final, "_FINAL", short)
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


def race_says_faster_and_the_last_measurement(monkeypatch, times):
    """The search's races all say that candidates are faster; the last measurement, `float` first, says `times`."""

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


@pytest.mark.parametrize(
    ("times", "choice"),
    [
        ({"float": 100, "full": 80, "tuned": 70}, "tuned"),
        ({"float": 100, "full": 80, "tuned": 80.001}, "tuned"),  # no slower as far as can be told
        ({"float": 100, "full": 80, "tuned": 81}, "full int8"),  # slower beyond doubt, though by little
        ({"float": 100, "full": 80, "tuned": 85}, "full int8"),
        ({"float": 60, "full": 80, "tuned": 70}, "float"),
    ],
)
def test_what_is_delivered_is_never_slower(candidates, samples, tmp_path, quick, monkeypatch, times, choice):
    race_says_faster_and_the_last_measurement(monkeypatch, times)
    tuned = tune(candidates, samples, tmp_path)
    assert tuned.choice == choice
    assert all(ratio.high <= final.NEVER_SLOWER for ratio in tuned.against.values())
    is_coded = b"QuantizeLinear" in tuned.file.read_bytes()
    assert is_coded is (choice != "float")
    assert bool(tuned.why) is (choice != "tuned")


@pytest.mark.parametrize(
    ("theirs", "us", "choice", "why"),
    [
        ("full", 60, "theirs", "of theirs: slower, or not surely within 1.03, so the fastest of all is kept"),
        ("full", 75, "tuned", ""),
        ("noise", 60, "tuned", "theirs cannot be taken: its SQNR falls by "),
    ],
)
def test_another_tools_file_is_the_artefact_where_it_is_faster_and_as_faithful(
    candidates, samples, tmp_path, quick, monkeypatch, theirs, us, choice, why
):
    other = candidates.write(Decision(), tmp_path / "theirs.onnx")
    if theirs == "noise":
        model = onnx.load(other)
        for each in model.graph.initializer:
            if each.data_type == onnx.TensorProto.INT8 and len(each.dims) > 1:
                each.raw_data = np.random.default_rng(0).permutation(np.frombuffer(each.raw_data, np.int8)).tobytes()
        onnx.save(model, other)
    times = {"float": 100.0, "full": 80.0, "tuned": 70.0, "theirs": float(us)}

    race_says_faster_and_the_last_measurement(monkeypatch, times)
    tuned = tune(candidates, samples, tmp_path / "out", others={"theirs": other})
    assert tuned.choice == choice and why in tuned.why and bool(tuned.why) is bool(why)
    assert (tuned.file.read_bytes() == other.read_bytes()) is (choice == "theirs")
    assert tuned.against.keys() == {"float", "full int8", "theirs"}
    assert (tuned.decision is None) is (choice == "theirs")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("float", "another file is called 'float', as one of autotune's own is; call it something else"),
        ("theirs", "theirs: nowhere.onnx: no such file"),
    ],
)
def test_another_tools_file_that_is_missing_or_called_like_ours_is_refused(
    candidates, samples, tmp_path, label, message
):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        tune(candidates, samples, tmp_path / "out", others={label: Path("nowhere.onnx")})


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
