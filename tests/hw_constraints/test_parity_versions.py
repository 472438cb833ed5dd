"""A file in the ONNX Runtime of another Python, and the version from which on it is another network."""

import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.parity_elsewhere import Elsewhere
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.hw_constraints.parity_versions import OtherVersionLink, bisect_versions
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.parity import Inputs, LinkError, compare_links
from bitwright.quant.parity.torch_links import CapturedLink

# An ONNX Runtime of another version: this one, whose Relus let a hundredth of negative values through if it is broken.
_OTHER = """
import sys
sys.path.remove({here!r})
me = sys.modules.pop("onnxruntime")
import onnxruntime as real
sys.modules["onnxruntime"] = me
globals().update({{name: each for name, each in vars(real).items() if not name.startswith("__")}})
__version__, BROKEN = {version!r}, {broken}
import onnx, os, signal


class InferenceSession(real.InferenceSession):
    def __init__(self, model, options, **more):
        loaded = onnx.load_from_string(model)
        for node in loaded.graph.node:
            if BROKEN and node.op_type == "Relu":
                node.op_type = "LeakyRelu"
        if BROKEN == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        super().__init__(loaded.SerializeToString(), options, **more)
"""


def other(folder: Path, version: str, broken: Any = False) -> Elsewhere:
    package = folder / version / "onnxruntime"
    package.mkdir(parents=True)
    text = _OTHER.format(here=str(folder / version), version=version, broken=repr(broken))
    (package / "__init__.py").write_text(text)
    return Elsewhere(str(folder / version))


@pytest.fixture(name="network")
def _network(tmp_path: Path) -> tuple[CapturedLink, Path, list[Inputs]]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    image = torch.randn(1, 3, 8, 8)
    captured = capture(module, (image,))
    return CapturedLink(captured), export_float(captured.graph, tmp_path / "model.onnx"), [Inputs(args=(image,))]


@pytest.fixture(name="interpreter")
def _interpreter(tmp_path: Path) -> Iterator[Elsewhere]:
    """Another interpreter: a program that runs this one."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with closing(Elsewhere(str(program))) as found:
        yield found


@pytest.mark.parametrize("level", ["disabled", "all"])
def test_another_interpreter_gives_what_this_one_gives(network: Any, interpreter: Elsewhere, level: str) -> None:
    reference, path, inputs = network
    here, there = OnnxRuntimeLink(path, level), OtherVersionLink(path, interpreter, level)
    assert interpreter.version == onnxruntime.__version__ and list(here.tensors) == list(there.tensors)
    found = [link.run(inputs[0], wanted=tuple(link.tensors)) for link in (here, there)]
    for name, value in found[0].tensors.items():
        np.testing.assert_array_equal(value, found[1].tensors[name])
    assert compare_links(reference, there, inputs).agrees


@pytest.mark.parametrize(
    ("broken", "agrees", "breaks"),
    [
        (("1.9.0", "1.20.0", "2.0"), "1.8.0", "1.9.0"),
        (("2.0",), "1.20.0", "2.0"),
        (("1.8.0", "1.9.0"), "1.20.0", "1.9.0"),  # mended in 1.20
        ((), "2.0", ""),
        (("1.8.0", "1.9.0", "1.20.0", "2.0"), "", "1.8.0"),
    ],
)
def test_versions_next_to_each_other_of_which_one_breaks(
    network: Any, tmp_path: Path, broken: tuple[str, ...], agrees: str, breaks: str
) -> None:
    """`1.9` comes before `1.20`."""
    reference, path, inputs = network
    processes = [other(tmp_path, version, version in broken) for version in ("1.20.0", "1.8.0", "2.0", "1.9.0")]
    try:
        links = {each.version: OtherVersionLink(path, each, "disabled") for each in processes}
        found = bisect_versions(reference, links, inputs)
    finally:
        for each in processes:
            each.close()
    assert found.versions == ("1.8.0", "1.9.0", "1.20.0", "2.0")
    assert (found.agrees, found.breaks) == (agrees, breaks) and found.comparisons <= 4
    if breaks:
        assert found.parity is not None and [each.tensor.op for each in found.parity.breaks] == ["relu"]


def test_a_version_that_crashes_is_said_with_its_signal(network: Any, tmp_path: Path) -> None:
    reference, path, inputs = network
    with closing(other(tmp_path, "9.9", "crash")) as crashing, closing(other(tmp_path, "9.8")) as sound:
        with pytest.raises(LinkError, match=r"onnxruntime 9\.9.*its process ended with signal SIGSEGV"):
            OtherVersionLink(path, crashing, "disabled").run(inputs[0])
        links = {each.version: OtherVersionLink(path, each, "disabled") for each in (crashing, sound)}
        found = bisect_versions(reference, links, inputs)
    assert found.breaks == "9.9" and found.parity is not None and found.parity.problem


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("nowhere", "is neither a Python interpreter nor a folder with onnxruntime in it"),
        ("empty", "has no ONNX Runtime that loads: ImportError: not here"),
    ],
)
def test_what_is_no_other_python_is_said(tmp_path: Path, place: str, says: str) -> None:
    (tmp_path / "empty" / "onnxruntime").mkdir(parents=True)
    (tmp_path / "empty" / "onnxruntime" / "__init__.py").write_text("raise ImportError('not here')")
    with pytest.raises(InputError, match=rf"--runtime .*{place}: {says}"):
        Elsewhere(str(tmp_path / place))
