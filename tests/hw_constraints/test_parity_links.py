"""ONNX Runtime's levels as links: what survives a level can be compared, what a fusion takes in cannot."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from bitwright.hw_constraints.parity_links import LEVELS, OnnxRuntimeLink
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.parity import Inputs, compare_links
from bitwright.quant.ptq import quantize


def test_inputs_survive_every_level_so_that_what_a_file_cuts_off_of_them_is_no_fault_of_a_layer(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    data = [torch.rand(1, 3, 10, 10) for _ in range(4)]
    captured = capture(network, (data[0],))
    export_float(captured.graph, tmp_path / "float.onnx")
    export_onnx_qdq(quantize(captured, load_target("x86-vnni").scheme(), data), tmp_path / "int8.onnx")
    far = Inputs(args=(3 * torch.randn(1, 3, 10, 10),))  # calibration has seen [0, 1]
    coded = OnnxRuntimeLink(tmp_path / "int8.onnx", "disabled")
    for level in LEVELS:
        link = OnnxRuntimeLink(tmp_path / "float.onnx", level)
        name = next(iter(link.tensors))
        assert np.array_equal(link.run(far, wanted=(name,)).tensors[name], far.args[0].numpy())
        assert compare_links(link, coded, (far,)).agrees, level
