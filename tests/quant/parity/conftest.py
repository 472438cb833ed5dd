"""A small network with a branch and a pool, its quantized twin and both files; faults to plant in files."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from bitwright.hw_constraints.parity_elsewhere import EXECUTORCH, Elsewhere
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.exporter import export_as
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.parity import Inputs
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.down = _block(3, 8, 2), _block(8, 8), _block(8, 16, 2)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(x)
        x = self.down(x + self.inner(x))
        return {"logits": self.head(self.pool(x).flatten(1))}


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs)
    for tensor, low, high in (
        (norm.running_mean, -0.3, 0.3),
        (norm.running_var, 0.5, 2.0),
        (norm.weight, 0.5, 1.5),
        (norm.bias, -0.2, 0.5),
    ):
        assert tensor is not None
        nn.init.uniform_(tensor, low, high)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm, nn.ReLU(inplace=True))


@dataclass(frozen=True, kw_only=True)
class Chain:
    module: nn.Module
    captured: CapturedModel
    folded: CapturedModel
    quantized: QuantizedModel
    float_file: Path
    quantized_file: Path
    inputs: tuple[Inputs, ...]
    quantized_for_tflite: QuantizedModel
    tflite_file: Path
    programs: Callable[[], tuple[Elsewhere, Path]] | None

    def planted(self, change: Callable[[onnx.ModelProto], None], *, file: Path | None = None) -> Path:
        """A copy of a file, with its provenance, in which something is wrong."""
        source = file or self.quantized_file
        model = onnx.load(source)
        change(model)
        path = source.with_name("planted.onnx")
        onnx.save(model, path)
        provenance = source.with_suffix(".provenance.json").read_text(encoding="utf-8")
        path.with_suffix(".provenance.json").write_text(provenance, encoding="utf-8")
        return path


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, u8s8: QuantScheme) -> Chain:
    folder = tmp_path_factory.mktemp("parity")
    torch.manual_seed(1)
    module = Small().eval()
    draw = torch.Generator().manual_seed(2)
    images = [torch.randn(1, 3, 16, 16, generator=draw) for _ in range(10)]
    captured = capture(module, (images[0],))
    quantized = quantize(captured, u8s8, [(image,) for image in images[2:]])
    folded = fold_batch_norm(captured)
    for_tflite = quantize(captured, load_target("arm-xnnpack").scheme(), [(image,) for image in images[2:]])
    export_as(for_tflite, folder / "codes.tflite", "tflite_int8")
    return Chain(
        module=module,
        captured=captured,
        folded=folded,
        quantized=quantized,
        float_file=export_float(folded.graph, folder / "float.onnx"),
        quantized_file=export_onnx_qdq(quantized, folder / "quantized.onnx"),
        inputs=tuple(Inputs(args=(image,)) for image in images[:2]),
        quantized_for_tflite=for_tflite,
        tflite_file=folder / "codes.tflite",
        programs=_programs(module, images[0], folder),
    )


PEERS_PYTHON = Path(__file__).parents[3] / ".peers" / "executorch" / "bin" / "python"
_BUILD = """
import sys, torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
for file, parts in (("portable", []), ("xnnpack", [XnnpackPartitioner()])):
    program = to_edge_transform_and_lower(torch.export.load(sys.argv[1]), partitioner=parts).to_executorch()
    open(f"{sys.argv[2]}/{file}.pte", "wb").write(program.buffer)
"""


def _programs(module: nn.Module, image: torch.Tensor, folder: Path) -> Callable[[], tuple[Elsewhere, Path]] | None:
    """Makes the network's programs where ExecuTorch is, when they are first asked for; None where it is nowhere."""
    is_here = importlib.util.find_spec("executorch") is not None
    if not is_here and not PEERS_PYTHON.is_file():
        return None

    @cache
    def made() -> tuple[Elsewhere, Path]:
        process = Elsewhere(sys.executable if is_here else str(PEERS_PYTHON), EXECUTORCH)
        torch.export.save(torch.export.export(module, (image,)), folder / "network.pt2")
        command = [process.place, "-c", _BUILD, str(folder / "network.pt2"), str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        return process, folder

    return made


@pytest.fixture(name="rewrite", scope="session")
def _rewrite() -> Callable[..., None]:
    return rewrite


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(each for each in model.graph.initializer if each.name == name)


def rewrite(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = initializer(model, name)
    old = numpy_helper.to_array(tensor)
    new = np.asarray(change(old), old.dtype, order="C")
    assert not np.array_equal(old, new), "nothing was planted"
    tensor.CopyFrom(numpy_helper.from_array(new, name))
