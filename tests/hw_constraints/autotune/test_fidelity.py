"""When a file is less faithful than another, beyond noise."""

import numpy as np
import pytest

from bitwright.hw_constraints.autotune.decision import Decision
from bitwright.hw_constraints.autotune.fidelity import Fidelity, RuntimeAccuracy, worse
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.sqnr import sqnr_db


def fidelity(agreement: list[float], sqnr: float = 20.0, spread: float = 1.0) -> Fidelity:
    noise = np.random.default_rng(1).normal(0, spread, 100)
    return Fidelity(agreement=tuple(agreement), sqnr_db=tuple(sqnr + noise))


def test_equal_files_are_not_worse():
    full = fidelity([1.0] * 90 + [0.0] * 10)
    assert worse(full, full) is None


def test_one_sample_lost_is_noise_and_ten_are_not():
    full = fidelity([1.0] * 90 + [0.0] * 10)
    assert worse(fidelity([1.0] * 89 + [0.0] * 11), full) is None
    assert worse(fidelity([1.0] * 80 + [0.0] * 20), full).startswith("agreement falls by 10.00 points")


def test_samples_lost_and_won_cancel():
    full = fidelity([1.0] * 50 + [0.0] * 50)
    assert worse(fidelity([0.0] * 10 + [1.0] * 50 + [0.0] * 40), full) is None


def test_noise_counts_where_it_is_sure_and_not_tiny():
    full = fidelity([])
    assert worse(fidelity([], 19.95), full) is None
    assert worse(fidelity([], 19.0), full) == "SQNR falls by 1.00 dB (95 % at least 1.00)"
    assert worse(fidelity([], 21.0), full) is None


def test_agreement_and_sqnr_of_a_file_are_those_of_its_results(candidates, samples, tmp_path):
    given = samples(6, 9)
    float_file = export_float(candidates.reference.graph, tmp_path / "float.onnx")
    full = candidates.write(Decision(), tmp_path / "full.onnx")
    judge = RuntimeAccuracy(float_file, given, "onnxruntime")
    assert judge(float_file) == Fidelity(agreement=(1.0,) * 6, sqnr_db=(200.0,) * 6)
    found = judge(full)
    import onnxruntime as ort

    for place, sample in enumerate(given):
        want, have = (ort.InferenceSession(str(file)).run(None, sample)[0] for file in (float_file, full))
        assert found.agreement[place] == float(want.argmax() == have.argmax())
        signal, noise = float((want.astype(float) ** 2).sum()), float(((want.astype(float) - have) ** 2).sum())
        assert found.sqnr_db[place] == pytest.approx(sqnr_db(signal, noise), abs=1e-3)


def test_no_sample_is_refused(tmp_path):
    with pytest.raises(InputError, match="no sample to judge accuracy by"):
        RuntimeAccuracy(tmp_path / "none.onnx", [], "onnxruntime")
