"""`bitwright autotune` as a stranger meets it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from bitwright.experiments.autotune_subject import sole_tuner
from bitwright.hw_constraints.table import KernelTable, TableKey
from bitwright.hw_constraints.table.reference import REFERENCE
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float

SHAPE = (1, 3, 12, 12)
LOADER = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(512, 4)).eval()

def data():
    torch.manual_seed(1)
    return [(torch.randn(1, 3, 12, 12), torch.zeros(1)) for _ in range(20)]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("autotune")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(72, 4)).eval()
    export_float(capture(network, (torch.zeros(SHAPE),)).graph, here / "float.onnx")
    pictures = np.random.default_rng(0).standard_normal((12, *SHAPE[1:])).astype(np.float32)
    np.save(here / "pictures.npy", pictures)
    np.savez(here / "pictures.npz", input=pictures)
    (here / "own.py").write_text(LOADER)
    return here


@pytest.fixture
def bitwright(command_line):
    return lambda folder, *arguments: command_line(folder, "autotune", *arguments)


FILE = ("float.onnx", "--data", "pictures.npz", "--target", "x86-vnni", "--runtime", "onnxruntime", "--minutes", 0.2)


@pytest.mark.slow
def test_a_float_file_is_quantized_and_tuned_and_the_record_goes_on(bitwright, folder):
    code, out, error = bitwright(folder, *FILE, "--budget", 2, "--out", "first", "--json")
    assert code == 0, error
    found = json.loads(out)
    assert found["origin"] == "measured" and found["tries"] <= 2
    assert Path(folder / found["file"]).samefile(folder / "first" / "tuned.onnx")
    assert ort.InferenceSession(str(folder / "first" / "tuned.onnx")).run(None, {"input": np.zeros(SHAPE, np.float32)})
    size = (folder / "first" / "tries.jsonl").stat().st_size
    code, again, error = bitwright(folder, *FILE, "--budget", 2, "--out", "first", "--json")
    assert code == 0, error
    assert json.loads(again) == found
    assert (folder / "first" / "tries.jsonl").stat().st_size == size  # nothing was measured
    quantized = folder / "first" / "tuned.onnx"
    code, out, error = bitwright(
        folder, quantized, "--data", "pictures.npy", "--runtime", "onnxruntime", "--budget", 1, "--out", "second"
    )
    if found["choice"] == "float":
        assert code == 2 and "needs --target" in error
    else:
        assert code == 0, error
        assert re.search(r"full int8 +\d+\.\d{3} ms", out)


@pytest.mark.slow
def test_a_network_by_its_entry(bitwright, folder):
    code, out, error = bitwright(
        folder, "own:network", "--data", "own:data", "--target", "x86-vnni", "--runtime", "openvino", "--budget", 1,
        "--minutes", 0.1, "--out", "entry",
    )  # fmt: skip
    assert code == 0, error
    assert "sites in float; 1 files tried" in out
    assert "10 samples to search with, 10 to check with" in error  # one loader for all splits: its halves


def test_ctrl_c_leaves_a_record_that_goes_on(folder):
    command = [*FILE, "--out", "stopped"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bitwright.experiments.cli", "autotune", *map(str, command)],
        cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    record = folder / "stopped" / "tries.jsonl"
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not (record.is_file() and record.read_text().count("\n") >= 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "bitwright: stopped; measured tries are kept, go on with: bitwright autotune float.onnx" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.onnx", "--data", "pictures.npy"), "none.onnx: no such file"),
        (("float.onnx",), "an ONNX file needs --data: a .npz (arrays by input name), a .npy, or"),
        (("float.onnx", "--data", "pictures.npy"), "an ONNX file in float needs --target"),
        (
            ("float.onnx", "--data", "none.npy", "--target", "x86-vnni"),
            "--data = 'none.npy': cannot be read as arrays (No such file or directory)",
        ),
        (("float.onnx", "--data", "own.py", "--target", "x86-vnni"), "--data = 'own.py'; expected a .npz, a .npy, or"),
        (("own:network", "--target", "x86-vnni"), "a network by its entry needs --target and --data"),
        (
            ("own:network", "--target", "x86-vnni", "--data", "pictures.npy"),
            "--data = 'pictures.npy'; a network or a recipe takes its data from package.module:function",
        ),
        (
            (*FILE, "--out", "pictures.npy"),
            "--out = 'pictures.npy': is a file; expected a folder for the record and the artefact",
        ),
        (
            ("net.tflite", "--data", "pictures.npy"),
            "net.tflite: is built for one runtime, which leaves no Q/DQ to move; autotune takes "
            "package.module:function, a recipe, or an ONNX file in its place",
        ),
        (
            ("float.onnx", "--data", "pictures.npy", "--target", "edge-tpu", "--runtime", "onnxruntime"),
            "--target = 'edge-tpu'; 'edge-tpu' runs in edgetpu-compiler, not in 'onnxruntime'",
        ),
        ((*FILE, "--budget", 0), "--budget = 0; at least 1 try is needed"),
        ((*FILE, "--minutes", "nan"), "--minutes = nan; expected a number above 0"),
        ((*FILE, "--threads", 0), "--threads = 0; at least 1 is needed"),
        (("float.onnx", "--runtime", "tensorflow"), "unknown backend 'tensorflow'"),
        ((*FILE[:-4], "--runtime", "eager"), "--runtime = 'eager': reads no ONNX files, and autotune writes those"),
    ],
)
def test_what_cannot_be_is_one_line(bitwright, folder, arguments, message):
    code, out, error = bitwright(folder, *arguments)
    assert (code, out) == (2, "")
    assert error.startswith("bitwright: ") and message in error
    assert "Traceback" not in error


def test_a_second_tuner_in_one_folder_is_refused_and_the_first_one_goes_on(bitwright, folder):
    with sole_tuner(folder / "shared"):
        code, _, error = bitwright(folder, *FILE, "--budget", 1, "--out", "shared")
    assert code == 2
    assert error.endswith(
        f"bitwright: {Path('shared') / 'tries.jsonl'}: process {os.getpid()} is tuning into it; "
        "wait for it, or choose another --out\n"
    )
    assert not (folder / "shared" / "tries.jsonl").exists()


@pytest.mark.slow
def test_data_of_another_shape_or_name_are_refused(bitwright, folder):
    np.savez(folder / "wrong.npz", image=np.zeros((3, *SHAPE[1:]), np.float32))
    np.save(folder / "wrong.npy", np.zeros((3, 3, 8, 8), np.float32))
    np.save(folder / "one.npy", np.zeros((1, *SHAPE[1:]), np.float32))
    for data, message in (
        ("wrong.npz", "holds ['image']; the network takes ['input']"),
        ("wrong.npy", "input has the shape (3, 3, 8, 8); expected (samples, 3, 12, 12)"),
        ("one.npy", "autotune needs at least two samples, to search with one and check with the other"),
    ):
        code, _, error = bitwright(folder, "float.onnx", "--data", data, "--target", "x86-vnni")
        assert code == 2
        assert message in error


@pytest.mark.slow
def test_a_table_that_tries_cannot_be_ordered_by_is_refused(bitwright, folder):
    one, two = TableKey.here("onnxruntime", 1), TableKey.here("onnxruntime", 2)
    for name, key in (("empty.table", one), ("two.table", two)):
        with KernelTable.writing(folder / name, key, REFERENCE.to_json()):
            pass
    differs = f"is a table of {two}, which differs: threads 2, here 1"
    for table, message in (
        ("none.table", "no such file"),
        ("empty.table", "has no measured kernel; fill it first: bitwright measure kernels --out empty.table"),
        ("two.table", f"{differs}. Measure another one for this: bitwright measure kernels --out ANOTHER"),
    ):
        code, _, error = bitwright(folder, *FILE, "--table", table, "--out", "ordered")
        assert code == 2
        assert f"bitwright: {table}: {message}" in error


def test_another_tools_file_that_is_not_there_or_called_alike_is_refused(bitwright, folder):
    code, _, error = bitwright(folder, *FILE, "--against", "gone.onnx", "--out", "beside")
    assert (code, error) == (2, "bitwright: --against = 'gone.onnx': no such file\n")
    code, _, error = bitwright(folder, *FILE, "--against", "a/x.onnx", "--against", "b/x.onnx", "--out", "beside")
    assert (code, error) == (
        2, "bitwright: --against: two files are called alike (a/x.onnx, b/x.onnx); rename one\n",
    )  # fmt: skip
    assert not (folder / "beside").exists()
