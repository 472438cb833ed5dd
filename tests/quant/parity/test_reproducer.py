"""A reproducer fails on the break, alone in another process, and passes once the layer is right again."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from bitwright.quant.parity import compare_links
from bitwright.quant.parity.onnx_link import ReferenceLink
from bitwright.quant.parity.reproducer import write_reproducer
from bitwright.quant.parity.torch_links import CapturedLink, SimulationLink

CASES: dict[str, Callable[[Any], Any]] = {
    "inner.2@0.0.0/scale": lambda old: old * 1.03,
    "inner.0.weight/codes": lambda old: old[:, ::-1],
}


@pytest.mark.parametrize("name", CASES)
def test_the_script_fails_as_long_as_the_layer_is_wrong(chain: Any, rewrite: Any, tmp_path: Path, name: str) -> None:
    broken = chain.planted(lambda m: rewrite(m, name, CASES[name]))
    first, second = SimulationLink(chain.quantized), ReferenceLink(broken)
    layer = compare_links(first, second, chain.inputs).breaks[-1]
    script = write_reproducer(tmp_path / "case", layer, first, second, second.network, chain.inputs[layer.sample])
    assert len(onnx.load(script.parent / "layer.onnx").graph.node) <= 7
    assert subprocess.run([sys.executable, script], capture_output=True).returncode == 1
    good = ReferenceLink(chain.quantized_file)
    write_reproducer(tmp_path / "good", layer, first, good, good.network, chain.inputs[layer.sample])
    mended = subprocess.run([sys.executable, tmp_path / "good" / "reproduce.py"], capture_output=True, text=True)
    assert mended.returncode == 0, mended.stdout + mended.stderr


def test_real_values_are_compared_by_their_scale(chain: Any, rewrite: Any, tmp_path: Path) -> None:
    broken = chain.planted(lambda m: rewrite(m, "head.weight", lambda old: old * 1.001), file=chain.float_file)
    first, second = CapturedLink(chain.folded), ReferenceLink(broken)
    (layer,) = compare_links(first, second, chain.inputs).breaks
    script = write_reproducer(tmp_path, layer, first, second, second.network, chain.inputs[0])
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert run.returncode == 1 and "largest difference" in run.stdout
