"""The smallest network that still shows a break: one layer of a file, what it reads, and a script that fails.

In a folder: `layer.onnx` cut out of the file, `tensors.npz` (what the layer reads on the good side, and what the good
side makes of it), `reproduce.py`, which needs ONNX Runtime and NumPy alone and exits with 1 as long as the layer
differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bitwright.quant.parity.joining import join
from bitwright.quant.parity.link import Link
from bitwright.quant.parity.locate import LayerParity, on_grid
from bitwright.quant.parity.onnx_network import OnnxNetwork, drop_dead
from bitwright.quant.parity.results import Inputs

_SCRIPT = '''"""{title}

{error}; allowed: {allowed}.
Exits with 1 as long as the layer differs.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

here = Path(__file__).resolve().parent
tensors = np.load(here / "tensors.npz")
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(str(here / "layer.onnx"), options, providers=["CPUExecutionProvider"])
feeds = {{each.name: tensors[f"input {{each.name}}"] for each in session.get_inputs()}}
(found,) = session.run([{output!r}], feeds)
expected = tensors["expected"]
{check}'''
_FLOATS = """worst = np.abs(found.astype(np.float64) - expected).max()
print(f"largest difference: {{worst:.3g}}; allowed: {may:.3g}")
sys.exit(0 if worst <= {may!r} else 1)
"""
_CODES = """# Both as codes of the reference: real = scale * (code - zero point).
scale, zero_point = {first_scale!r}, {first_zero_point!r}
real = {second_scale!r} * (found.astype(np.int64) - {second_zero_point!r})
distance = np.abs(np.rint(real / scale) - np.rint(expected / scale))
print(f"{{int((distance > 0).sum())}} of {{distance.size}} codes differ, by {{int(distance.max())}} at most")
print("allowed are {may:.0f} by {reach}: the other side of rounding ties")
print(f"scale {second_scale!r} and zero point {second_zero_point!r}; expected {{scale!r}} and {{zero_point!r}}")
same_grid = (scale, zero_point) == ({second_scale!r}, {second_zero_point!r})
sys.exit(0 if same_grid and (distance > 0).sum() <= {may!r} and distance.max() <= {reach} else 1)
"""
_NOISE = """# Codes against real values: the noise of their rounding; what they cut off does not count.
real = {scale!r} * (found.astype(np.int64) - {zero_point!r})
noise = np.sqrt(np.square(real - np.clip(expected, {low!r}, {high!r}).astype(np.float64)).mean())
print(f"root mean square of the difference: {{noise:.3g}}; allowed: {may:.3g}")
sys.exit(0 if noise <= {may!r} else 1)
"""


def write_reproducer(
    folder: Path, layer: LayerParity, first: Link, second: Link, network: OnnxNetwork, inputs: Inputs
) -> Path:
    """Writes the reproducer of one break.

    Args:
        folder: made when it is not there.
        layer: the break.
        first: the reference.
        second: the link that breaks.
        network: its file.
        inputs: those on which the break is worst.

    Returns:
        The script.

    Raises:
        OSError: the folder cannot be written.
    """
    joined = join(first.tensors, second.tensors, second.replaced)
    recorded = first.run(inputs, wanted=tuple(joined)).tensors
    known = {name: on_grid(value, second.tensors[joined[name]].grid) for name, value in recorded.items()}
    if first.takes_tensors:
        recorded = first.run(inputs, wanted=(layer.tensor.name,), given=known).tensors
    others = {joined[name]: value for name, value in known.items() if name != layer.tensor.name}
    model = network.cut(others, (layer.other_name,))
    value = network.shown[layer.other_name].value
    _keep_one_output(model, value)
    entering = {each.name for each in model.graph.input}
    feeds = {name: array for name, array in network.feeds(inputs, others).items() if name in entering}
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "layer.onnx")
    arrays: dict[str, Any] = {f"input {name}": array for name, array in feeds.items()}
    np.savez(folder / "tensors.npz", **arrays, expected=recorded[layer.tensor.name])
    script = folder / "reproduce.py"
    script.write_text(_script(layer, first, network, value), encoding="utf-8")
    return script


def _script(layer: LayerParity, first: Link, network: OnnxNetwork, value: str) -> str:
    there, here, own = network.shown[layer.other_name].grid, layer.tensor.grid, layer.own
    assert own is not None  # only layers that were judged break
    if there is None:
        check = _FLOATS.format(may=own.may)
    elif here is None:
        low, high = (float(there.real(np.array(code))) for code in (there.low, there.high))
        scale, zero_point = float(there.scale), there.zero_point
        check = _NOISE.format(scale=scale, zero_point=zero_point, low=low, high=high, may=own.may)
    else:
        check = _CODES.format(
            first_scale=float(here.scale),
            first_zero_point=here.zero_point,
            second_scale=float(there.scale),
            second_zero_point=there.zero_point,
            may=own.may,
            reach=own.reach,
        )
    return _SCRIPT.format(
        title=f"{layer.other_name} of {network.path.name} is not what {first.name} makes of the same inputs.",
        error=own.error,
        allowed=own.allowed,
        output=value,
        check=check,
    )


def _keep_one_output(model: onnx.ModelProto, value: str) -> None:
    """Leaves out the other results, and what only they hang on."""
    kept = [each for each in model.graph.output if each.name == value]
    model.graph.ClearField("output")
    model.graph.output.extend(kept)
    drop_dead(model)
