import onnx
import pytest

from bitwright.experiments.benchmarks.planted import CAUSES, QdqFile, sound
from bitwright.experiments.benchmarks.raw_trace import claimed, ran
from bitwright.experiments.benchmarks.rows.proof_peers import planted_line
from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.proof import prove

PLANTED = [(runtime, cause) for runtime, causes in CAUSES.items() for cause in causes]


@pytest.fixture
def sound_file(tmp_path):
    file = tmp_path / "sound.onnx"
    onnx.save(sound(QdqFile()), file)
    return file


def needs(runtime):
    if reason := get_backend(runtime).available():
        pytest.skip(reason)


@pytest.mark.parametrize("runtime", CAUSES)
def test_the_sound_file_runs_in_int8_by_its_trace(runtime, sound_file):
    needs(runtime)
    report = prove(sound_file, runtime, runs=1)
    assert ran(report) == claimed(report) == {("int8", (16, 16, 16)): 3}


@pytest.mark.parametrize(("runtime", "cause"), PLANTED, ids=[f"{name}-{cause.__name__}" for name, cause in PLANTED])
def test_a_planted_cause_keeps_a_layer_in_float_and_is_named(runtime, cause):
    needs(runtime)
    line = planted_line(cause, runtime)
    assert line["ran in"] == "float"
    assert line["named"] == cause.__name__


def test_planted_files_are_valid_onnx():
    for _, cause in PLANTED:
        onnx.checker.check_model(cause(QdqFile()), full_check=True)
