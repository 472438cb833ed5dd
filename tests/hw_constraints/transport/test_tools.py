"""Vendors' tools. `benchmark_app` is the real one; the others are stand-ins that print what theirs print.

The formats are those of onnxruntime_perf_test's own output (`P50 Latency: … s`) and of trtexec's --exportTimes.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bitwright.hw_constraints.transport import Job, Journal, run_jobs
from bitwright.hw_constraints.transport.content import file_content
from bitwright.hw_constraints.transport.failures import Rejected, Unusable

PERF_TEST = """#!{python}
import json, sys
open({calls!r}, "a").write(json.dumps(sys.argv[1:]) + "\\n")
if open(sys.argv[-1], "rb").read(4) == b"this":
    print("Loading model from buffer failed: Failed to load model because protobuf parsing failed.", file=sys.stderr)
    sys.exit(255)
size = len(open(sys.argv[-1], "rb").read())
print("Session creation time cost: 0.0102016 s\\nAverage inference time cost: 1.85739 ms\\nRuns:100")
print(f"Min Latency: 0.0001 s\\nMax Latency: 1 s\\nP50 Latency: {{size * 1e-6:.6g}} s\\nP90 Latency: 1 s")
"""
TRTEXEC = """#!{python}
import json, os, sys
open({calls!r}, "a").write(json.dumps(sys.argv[1:]) + "\\n")
given = dict(each.lstrip("-").partition("=")[::2] for each in sys.argv[1:])
if "stronglyTyped" in given and os.path.exists({calls!r} + ".old"):
    print("[E] Unknown option: --stronglyTyped")
    sys.exit(1)
if "onnx" in given:
    if open(given["onnx"], "rb").read(4) == b"this":
        print("[I] === Build ===\\n[E] [TRT] ModelImporter.cpp:949: Failed to parse ONNX model from file\\n&&&& FAILED")
        sys.exit(1)
    open(given["saveEngine"], "w").write(str(os.path.getsize(given["onnx"])))
else:
    size = int(open(given["loadEngine"]).read())
    times = [dict(startComputeMs=0, computeMs=size * 1e-3 * factor, latencyMs=99) for factor in (0.5, 1, 7)]
    json.dump(times, open(given["exportTimes"], "w"))
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The stand-ins in PATH; gives what they were called with."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name, script in (("onnxruntime_perf_test", PERF_TEST), ("trtexec", TRTEXEC)):
        (folder / name).write_text(script.format(python=sys.executable, calls=str(log)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def job(model, larger_model):
    artefacts = {"a": file_content(model), "b": file_content(larger_model)}
    return Job(artefacts=artefacts, runtime="", min_rounds=6, max_seconds=20, nonce="n")


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "jobs.sqlite")


@pytest.mark.parametrize(
    ("name", "tool"), [("onnxruntime_perf_test", "onnxruntime_perf_test"), ("tensorrt", "trtexec")]
)
def test_the_tools_own_medians_are_paired_by_round(device, calls, job, journal, name, tool):
    (result,) = run_jobs(device, [replace(job, runtime=name)], journal)
    measurement = result.measurement
    sizes = {each: job.artefacts[each].size for each in "ab"}
    for each, size in sizes.items():
        assert measurement.times_us[each] == pytest.approx([size] * 6)
    assert measurement.ratio("b", "a").value == pytest.approx(sizes["b"] / sizes["a"])
    assert measurement.converged
    assert measurement.rounds == 6
    assert measurement.versions["a"][tool].endswith(tool)


def test_artefacts_take_turns_in_changing_order(device, calls, job, journal):
    run_jobs(device, [replace(job, runtime="onnxruntime_perf_test")], journal)
    models = [each[-1] for each in calls()]
    rounds = [tuple(models[number : number + 2]) for number in range(0, len(models), 2)]
    assert len(rounds) == 6
    assert all(len(set(each)) == 2 for each in rounds)
    assert len(set(rounds)) == 2
    assert calls()[0][:-1] == ["-I", "-m", "duration", "-t", "1", "-x", "1", "-y", "1", "-e", "cpu", "-o", "99"]


def test_an_engine_is_built_once_for_each_artefact(device, calls, job, journal):
    run_jobs(device, [replace(job, runtime="tensorrt")], journal)
    builds = [each for each in calls() if each[0].startswith("--onnx")]
    assert len(builds) == 2
    assert all("--stronglyTyped" in each for each in builds)


def test_an_older_trtexec_is_told_in_its_words(device, calls, job, journal, tmp_path):
    (tmp_path / "calls.old").write_text("")
    run_jobs(device, [replace(job, runtime="tensorrt")], journal)
    builds = [each for each in calls() if each[0].startswith("--onnx") and "--int8" in each]
    assert len(builds) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tensorrt",
            r"the runtime rejects b: trtexec ended with 1: \[E\] \[TRT\] ModelImporter\.cpp:949: Failed to parse",
        ),
        ("onnxruntime_perf_test", r"rejects b: onnxruntime_perf_test ended with 255: Loading model from buffer failed"),
    ],
)
def test_what_a_tool_rejects_is_said_in_its_words(device, calls, job, journal, tmp_path, name, message):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    artefacts = {**job.artefacts, "b": file_content(broken)}
    with pytest.raises(Rejected, match=message):
        run_jobs(device, [replace(job, runtime=name, artefacts=artefacts)], journal)


def test_a_tool_that_prints_something_else(device, calls, job, journal, tmp_path):
    (tmp_path / "bin" / "onnxruntime_perf_test").write_text("#!/bin/sh\necho 'Latency (median): 3'\n")
    message = r"onnxruntime_perf_test printed no latency; its last line: Latency \(median\): 3"
    with pytest.raises(Unusable, match=message):
        run_jobs(device, [replace(job, runtime="onnxruntime_perf_test")], journal)


def test_a_tool_takes_no_inputs(device, calls, job, journal):
    with pytest.raises(Unusable, match="trtexec makes its inputs up and takes none"):
        run_jobs(device, [replace(job, runtime="tensorrt", inputs={"a": job.artefacts["a"]})], journal)


def test_the_real_benchmark_app(device, job, journal, tmp_path):
    if not (Path(sys.executable).parent / "benchmark_app").exists():
        pytest.skip("benchmark_app is not here: pip install openvino")
    (result,) = run_jobs(device, [replace(job, runtime="benchmark_app", min_rounds=1, max_seconds=1)], journal)
    # 64 times the multiply-accumulates.
    assert result.measurement.latency("b").median_us > result.measurement.latency("a").median_us > 0
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    with pytest.raises(Rejected, match=r"rejects a: benchmark_app ended with 1: .*Unable to read the model"):
        run_jobs(device, [replace(job, runtime="benchmark_app", artefacts={"a": file_content(broken)})], journal)
