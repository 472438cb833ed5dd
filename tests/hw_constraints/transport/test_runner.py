"""The one file that runs on a device: what it holds, what it needs, and that it measures as this machine does."""

import ast
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.measure import measurement_from_json
from bitwright.hw_constraints.transport import measure_files_on
from bitwright.hw_constraints.transport.bundle import SHARED, bundle, receiver
from bitwright.hw_constraints.transport.runner.runtimes import NAMES, runtime

PACKAGES_OF_RUNTIMES = {"numpy", "onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        archive.extractall(folder)
    (folder / "receive.py").write_bytes(receiver())
    return folder


def test_python_3_8_can_run_all_of_it(unpacked):
    vermin = Path(sys.executable).with_name("vermin")
    command = [vermin, "--no-tips", "--violations", "-t=3.8-", unpacked]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    # Annotations are of later versions: no file may have them evaluated.
    for path in unpacked.rglob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        annotated = any(isinstance(node, ast.AnnAssign | ast.arg) for node in ast.walk(tree))
        assert not annotated or path.name == "receive.py" or "from __future__ import annotations" in path.read_text()


def test_it_imports_nothing_but_the_standard_library_and_itself(unpacked):
    inside = {".".join(path.relative_to(unpacked).with_suffix("").parts) for path in unpacked.rglob("*.py")}
    imported = set()
    for path in unpacked.rglob("*.py"):
        for node in ast.walk(without_type_checking(ast.parse(path.read_text()))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported |= {each.name for each in node.names}
    ours = {name for name in imported if name.startswith("bitwright")}
    assert ours <= {name.removesuffix(".__init__") for name in inside}
    assert set(SHARED) <= ours
    others = {name.partition(".")[0] for name in imported - ours}
    assert others - set(sys.stdlib_module_names) <= PACKAGES_OF_RUNTIMES


def without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


def test_the_same_sources_give_the_same_bytes():
    bundle.cache_clear()
    first = bundle()
    bundle.cache_clear()
    assert bundle() == first


def test_it_runs_where_bitwright_is_not(tmp_path):
    """In an interpreter without site-packages: no Bitwright, no NumPy, no runtime."""
    path = tmp_path / "runner.pyz"
    path.write_bytes(bundle())
    request = json.dumps({"folder": str(tmp_path)})
    command = [sys.executable, "-I", "-S", path, "hello"]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=True, cwd=tmp_path)
    answer = json.loads(done.stdout.removeprefix("bitwright-device "))
    missing = (
        f"onnxruntime is not installed for {sys.executable}; install it there (pip install onnxruntime), "
        "or name another Python in the address: ?python=PATH"
    )
    assert answer["runtimes"]["onnxruntime"] == {"missing": missing}
    assert answer["machine"]["cores"] >= 1


@pytest.fixture
def int8_file(tmp_path) -> Path:
    """An int8 linear layer for LiteRT, written as that runtime's own tests write theirs."""
    pytest.importorskip("ai_edge_litert", reason="package ai-edge-litert is not installed")
    from bitwright.experiments.benchmarks.tflite_writer import TfliteWriter

    writer = TfliteWriter()
    source = writer.tensor("codes", (5, 8), "int8", scale=0.05, zero_point=3)
    scales = np.full(4, 0.01, np.float32)
    weight = writer.tensor("weight", (4, 8), "int8", data=np.ones((4, 8), np.int8), scale=scales)
    bias = writer.tensor("bias", (4,), "int32", data=np.zeros(4, np.int32), scale=0.05 * scales)
    result = writer.tensor("output", (5, 4), "int8", scale=0.1, zero_point=-7)
    writer.operator("FULLY_CONNECTED", [source, weight, bias], [result], "FullyConnectedOptions")
    path = tmp_path / "linear.tflite"
    path.write_bytes(writer.content([source], [result]))
    return path


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert"])
def test_sessions_are_set_up_as_here(name, model, request):
    backend = get_backend(name)
    if backend.available():
        pytest.skip(backend.available())
    path = request.getfixturevalue("int8_file") if name == "litert" else model
    here, there = backend.load(path, threads=1), runtime(name).load(str(path), 1)
    assert there.settings == dict(here.settings)
    described = [(spec.name, spec.dtype, spec.shape, spec.scale, spec.zero_point) for spec in here.input_infos]
    assert [tuple(spec) for spec in there.input_infos] == described
    assert runtime(name).version().startswith(backend.version())


def test_litert_measures_a_model_of_codes(device, int8_file, tmp_path):
    if get_backend("litert").available():
        pytest.skip(get_backend("litert").available())
    options = {"runtime": "litert", "journal": tmp_path / "j", "max_seconds": 0.5}
    assert measure_files_on(device, {"a": int8_file}, **options).measurement.latency("a").median_us > 0


@pytest.mark.parametrize("name", NAMES)
def test_each_runtime_measures_or_says_what_is_missing(name):
    each = runtime(name)
    assert each.install
    assert each.measure


def test_records_are_measurements(model):
    options = {"min_rounds": 5, "max_seconds": 0.5, "target_half_width": 0.5, "threads": 1, "seed": 0}
    record = runtime("onnxruntime").measure({"a": str(model), "b": str(model)}, {}, options, -1)
    record.pop("settings")
    device = {"cpu_model": "", "architecture": "", "isa": [], "cores": 1, "governor": None}
    measurement = measurement_from_json({**record, "device": device})
    assert measurement.ratio("b", "a").value == pytest.approx(1, rel=0.5)
    assert measurement.threads == 1
