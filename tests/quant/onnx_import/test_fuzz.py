"""Ten thousand mutated files: each is read or refused, quickly, in little memory, and linted without a crash."""

import importlib.util
import random
import resource
import signal
from collections import Counter
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from bitwright.hw_constraints.lint import lint
from bitwright.hw_constraints.target import load_target
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.onnx_import import graph_from_onnx

FILES = 10_500
SECONDS = 10  # for one file; all of them together take a few minutes
MEMORY_KIB = 400 << 10  # of growth over the whole run; the files are of some kilobytes


def _mutation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("onnx_mutation", Path(__file__).with_name("mutation.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"one file took more than {SECONDS} s")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[bytes]:
    """Every small network of the exporters' tests, in float and in int8."""
    folder = tmp_path_factory.mktemp("seeds")
    make_scheme, networks = request.getfixturevalue("make_scheme"), request.getfixturevalue("examples")
    contents = []
    for name, example in networks.items():
        files = [export_float(example.captured.graph, folder / f"{name}.onnx")]
        files.append(export_onnx_qdq(example.quantized(make_scheme("uint8", "int8")), folder / f"{name}-int8.onnx"))
        contents += [file.read_bytes() for file in files]
    return contents


def _examine(path: Path, target: Any) -> str:
    """Reads a file as far as anybody would; says how that ended."""
    try:
        imported = graph_from_onnx(path)
    except InputError as error:
        assert str(error).startswith(str(path)), error
        return "refused"
    plan = imported.plan_by(target.scheme())
    lint(imported.graph, target, plan=plan)
    for node in imported.graph.nodes:
        if all(None not in imported.graph.tensors[ref].shape for ref in (*node.tensors, *node.outputs)):
            imported.graph.macs(node)
    return "kept" if imported.kept else "read"


@pytest.mark.slow
def test_mutated_files_are_read_or_refused(seeds: list[bytes], tmp_path: Path) -> None:
    mutation, target, dice = _mutation(), load_target("x86-vnni"), random.Random(0)
    path, ends = tmp_path / "model.onnx", Counter[str]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, _too_long)
    try:
        for number in range(FILES):
            content = mutation.mutated(dice.choice(seeds), dice)
            path.write_bytes(content)
            signal.alarm(SECONDS)
            try:
                ends[_examine(path, target)] += 1
            except Exception as error:
                raise AssertionError(f"file {number} of seed 0: {type(error).__name__}: {error}") from error
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(dict(ends), f"{grown >> 10} MiB grown")
    assert grown < MEMORY_KIB
    # All three ends have to occur often, or the mutations test nothing.
    assert min(ends["read"], ends["kept"], ends["refused"]) > FILES // 20, ends
