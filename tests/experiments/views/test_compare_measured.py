"""`bitwright compare --measure`: artefacts of two runs side by side on this machine."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bitwright.experiments.regression_gate import QualityChange, artifact_of
from bitwright.hw_constraints.figures import Interval
from bitwright.quant.errors import InputError

ARTIFACT = Path("stages") / "quantize" / "quantized.onnx"


def bitwright(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitwright.experiments.cli", "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_run_against_its_copy_and_against_one_whose_head_forgot_everything(finished_run, tmp_path):
    copy, broken = (Path(shutil.copytree(finished_run, tmp_path / name)) for name in ("copy", "broken"))
    model = onnx.load(broken / ARTIFACT)
    largest = max((each for each in model.graph.initializer if len(each.dims) == 2), key=lambda each: each.dims[0])
    largest.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(largest)), largest.name))
    onnx.save(model, broken / ARTIFACT)

    same = bitwright(finished_run, copy, "--measure", "--runtime", "onnxruntime", "--seconds", 4, "--margin", 30)
    assert same.returncode == 0, same.stderr + same.stdout
    assert "Nothing is proven worse." in same.stdout
    assert re.search(
        r"top1, onnxruntime .*\+0\.00 points \[-\d.\d\d, \+\d.\d\d\]: (not worse|cannot tell)", same.stdout
    )

    worse = bitwright(finished_run, broken, "--measure", "--runtime", "onnxruntime", "--seconds", 4, "--json")
    found = json.loads(worse.stdout)["measured_again"]
    assert worse.returncode == 1
    assert found["quality"]["change"] == "worse" and "top1" in found["regressions"]
    assert found["quality"]["difference"]["high"] < -20
    assert len(found["latency"]["onnxruntime"]["processes"]) >= 6


def test_bare_files_compare_by_latency_alone(finished_run):
    stage = finished_run / "stages" / "quantize"
    done = bitwright(
        stage / "quantized.onnx", stage / "float.onnx", "--measure", "--runtime", "onnxruntime",
        "--seconds", 3, "--margin", 900,
    )  # fmt: skip
    assert done.returncode == 0 and "latency, onnxruntime" in done.stdout and "Recipe" not in done.stdout


def test_a_file_compares_with_a_run_by_latency_alone(finished_run):
    file = finished_run / "stages" / "quantize" / "quantized.onnx"
    done = bitwright(
        finished_run, file, "--measure", "--runtime", "onnxruntime", "--seconds", 3, "--margin", 900
    )  # fmt: skip
    assert done.returncode == 0 and "latency, onnxruntime" in done.stdout and "Recipe" not in done.stdout


@pytest.mark.parametrize(
    ("low", "high", "change"), [(-3.0, -1.0, "worse"), (-0.4, 0.1, "not worse"), (-3.0, 0.2, "cannot tell")]
)
def test_the_interval_of_the_paired_difference_decides(low, high, change):
    found = QualityChange(
        metric="top1", engine="e", old=90.0, new=89.0, margin=0.5, difference=Interval(value=low, low=low, high=high)
    )
    assert found.change == change
    assert f"{low:+.2f} points [{low:+.2f}, {high:+.2f}]: {change} (0.5 points lower is allowed" in str(found)


def test_a_metric_without_an_interval_is_not_judged():
    found = QualityChange(
        metric="map", engine="e", old=1, new=0, difference=None, margin=0.5, reason="it is the user's"
    )
    assert found.change == "not judged" and str(found) == "not judged, it is the user's"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "RUN", "--measure", "--margin", "-1"], "--margin = -1; expected 0 or more"),
        (["RUN", "RUN", "--measure", "--runtime", "onnx"], "unknown backend 'onnx'"),
        (["RUN", "nowhere", "--measure"], "nowhere.*give the folder of a run"),
        ([__file__, "RUN"], f"^bitwright: {re.escape(__file__)}: is a file; runs are compared by their folders, files"),
        ([__file__, "nowhere", "--measure"], r"\.py: expected a run's folder or an ONNX file"),
        (["RUN", "RUN", "--measure", "--seconds", "0"], "--seconds = 0; expected a number above 0"),
    ],
)
def test_what_is_wrong_is_one_message(finished_run, arguments, message):
    done = bitwright(*(finished_run if each == "RUN" else each for each in arguments))
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_without_an_artefact_says_what_to_do(tmp_path):
    with pytest.raises(
        InputError, match=r"quantized.onnx: no such file; run its recipe again up to the quantize stage"
    ):
        artifact_of(tmp_path)
    (tmp_path / "net.pt").write_text("")
    with pytest.raises(InputError, match=r"net.pt: expected a run's folder or an ONNX file"):
        artifact_of(tmp_path / "net.pt")
