"""ExecuTorch as a link: how a program's calls are shown, and, where ExecuTorch is there, real programs with faults.

It is looked for among the installed packages, then in `.peers/executorch` (`make peers`).
"""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.parity_elsewhere import EXECUTORCH, Elsewhere
from bitwright.hw_constraints.parity_executorch import ExecuTorchLink
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.parity import Inputs, LinkError, compare_links
from bitwright.quant.parity.torch_links import CapturedLink

PYTHON = Path(__file__).parents[2] / ".peers" / "executorch" / "bin" / "python"
BUILD = """
import sys, torch, warnings
warnings.simplefilter("ignore")
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
for kind, source, file in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    parts = [XnnpackPartitioner()] if kind == "xnnpack" else []
    program = torch.export.load(source)
    if kind == "codes":
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer, get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        import executorch.kernels.quantized
        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config())
        prepared = prepare_pt2e(program.module(check_guards=False), quantizer)
        prepared(*program.example_inputs[0])
        program = torch.export.export(convert_pt2e(prepared), program.example_inputs[0])
    open(file, "wb").write(to_edge_transform_and_lower(program, partitioner=parts).to_executorch().buffer)
"""


class Network(nn.Module):
    """Convolutions that a delegate takes around a running sum, which it does not; with memory if asked."""

    def __init__(self, *, remembers: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.inner = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.head, self.remembers = nn.Linear(8, 5), remembers
        self.norm.running_var.data.uniform_(0.5, 2)
        self.register_buffer("memory", torch.zeros(1, 8, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.cumsum(x, 1) * 0.2 + torch.relu(self.inner(x))
        if self.remembers:
            self.memory.mul_(0.5).add_(x)
            x = self.memory * 2
        return self.head(x.mean((2, 3)))


class Programs:
    """Builds and opens programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        self.python = Elsewhere.here(EXECUTORCH) or (Elsewhere(str(PYTHON), EXECUTORCH) if PYTHON.is_file() else None)
        self.inputs = [Inputs(args=(self.image,))]

    def build(self, **programs: tuple[str, nn.Module]) -> None:
        assert self.python is not None
        asked: list[str] = []
        for name, (kind, network) in programs.items():
            torch.export.save(
                torch.export.export(network.eval().requires_grad_(False), (self.image,)), self.folder / f"{name}.pt2"
            )
            asked += [kind, str(self.folder / f"{name}.pt2"), str(self.folder / f"{name}.pte")]
        subprocess.run([self.python.place, "-c", BUILD, *asked], check=True, capture_output=True)

    def link(self, name: str) -> ExecuTorchLink:
        assert self.python is not None
        return ExecuTorchLink(self.folder / f"{name}.pte", self.python)


def _negated() -> Network:
    network = Network()
    network.inner.weight.data[2] *= -1
    return network


@pytest.fixture(scope="module", name="programs")
def _programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    found = Programs(tmp_path_factory.mktemp("programs"))
    if found.python is None:
        pytest.skip("ExecuTorch is neither installed nor in .peers/executorch")
    found.build(
        portable=("portable", Network()), xnnpack=("xnnpack", Network()), codes=("codes", Network()),
        portable_wrong=("portable", _negated()), xnnpack_wrong=("xnnpack", _negated()),
        memory=("portable", Network(remembers=True)),
    )  # fmt: skip
    with closing(found.python):
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layers"), [("portable", 7), ("xnnpack", 6)])
def test_a_program_is_the_network(programs: Programs, kind: str, layers: int) -> None:
    found = compare_links(
        CapturedLink(capture(Network().eval(), (programs.image,))), programs.link(kind), programs.inputs
    )
    assert found.agrees and len(found.layers) >= layers


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["portable", "xnnpack"])
def test_a_wrong_weight_is_found_in_its_layer(programs: Programs, kind: str) -> None:
    """Of a delegate in the tensor that leaves it."""
    reference = CapturedLink(capture(Network().eval(), (programs.image,)))
    (fault,) = compare_links(reference, programs.link(f"{kind}_wrong"), programs.inputs).breaks
    assert fault.tensor.op == {"portable": "relu", "xnnpack": "add"}[kind]
    assert "channels 2 of 8" in (fault.own.where if fault.own else "")


@pytest.mark.slow
def test_codes_are_shown_as_real_values_on_their_grid(programs: Programs) -> None:
    link = programs.link("codes")
    coded = [name for name, each in link.tensors.items() if each.grid is not None]
    recorded = link.run(programs.inputs[0], wanted=coded).tensors
    assert len(coded) >= 5
    for name in coded:
        grid = link.tensors[name].grid
        assert grid is not None
        codes = recorded[name] / grid.scale
        np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
    assert compare_links(CapturedLink(capture(Network().eval(), (programs.image,))), link, programs.inputs).agrees


@pytest.mark.slow
def test_a_run_begins_with_what_a_program_remembers_at_its_beginning(programs: Programs) -> None:
    link = programs.link("memory")
    first, again = (next(iter(link.run(programs.inputs[0]).outputs.values())) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    expected = Network(remembers=True).eval()(programs.image).detach().numpy()
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(LinkError, match=r"what a program remembers cannot be set \(memory\); give first frames only"):
        link.run(Inputs(args=(programs.image,), state={"memory": np.zeros((1, 8, 8, 8), np.float32)}))


@pytest.mark.slow
def test_what_cannot_run_is_said(programs: Programs) -> None:
    (programs.folder / "torn.pte").write_bytes((programs.folder / "portable.pte").read_bytes()[:600])
    with pytest.raises(LinkError, match=r"torn\.pte: executorch .* cannot load it: RuntimeError"):
        programs.link("torn").run(programs.inputs[0])
    link = programs.link("portable")
    with pytest.raises(LinkError, match=r"portable\.pte: takes 1 tensors; the data have 2"):
        link.run(Inputs(args=(programs.image, programs.image)))
    with pytest.raises(LinkError, match=r"input 0 is float32 \[1, 3, 16, 16\]; the data have int64 \[1, 3, 16, 16\]"):
        link.run(Inputs(args=(programs.image.long(),)))
    with pytest.raises(LinkError, match=r"portable\.pte: executorch .* cannot run it: RuntimeError"):
        link.run(Inputs(args=(programs.image[..., :8],)))
    assert link.run(programs.inputs[0]).outputs  # the process lives on


def call(place: int, op: str, reads: list[int], writes: list[int], **more: Any) -> dict[str, Any]:
    shapes = [[1, 4] for _ in writes]
    told = {"is_delegate": False, "codes": None, "shapes": shapes, "dtypes": ["float32"] * len(writes)}
    return {"place": place, "op": op, "reads": reads, "writes": writes, **told, **more}


class Described:
    """A process that describes a program and gives what it is told to give."""

    version, place = "9.9", ""

    def __init__(self, *calls: dict[str, Any], **results: Any) -> None:
        self.calls, self.results = calls, results

    def open(self, *_: Any) -> dict[str, Any]:
        return {"inputs": [{"value": 0, "shape": [1, 4], "dtype": "float32"}], "calls": list(self.calls)}

    def run(self, *_: Any) -> dict[str, Any]:
        return {key.replace("_", ":").strip("r"): value for key, value in self.results.items()}


def test_calls_are_tensors_and_codes_stand_for_what_is_rounded_to_them() -> None:
    """`x → relu → Q → DQ → linear`: the ReLU is shown by its codes, and the linear layer reads those."""
    codes = {"scale": 0.5, "zero_point": 3, "low": 0, "high": 200}
    process: Any = Described(
        call(0, "relu", [0], [1]),
        call(1, "quantize_per_tensor", [1], [2], codes=codes, dtypes=["uint8"]),
        call(2, "dequantize_per_tensor", [2], [3]),
        call(4, "native_layer_norm", [3], [5, 6], shapes=[[1, 4], [0]]),
        call(5, "XnnpackBackend", [5, 0], [7], is_delegate=True),
        r0=np.zeros((1, 4), np.float32),
        r1_0=np.array([[0, 3, 5, 200]], np.uint8),
        r5_0=np.ones((1, 4), np.float32),
    )
    link = ExecuTorchLink(Path("a.pte"), process)
    found = link.tensors
    assert list(found) == ["input_0", "quantize_per_tensor#1:0", "native_layer_norm#4:0", "XnnpackBackend#5:0"]
    coded = found["quantize_per_tensor#1:0"]
    assert (coded.op, coded.reads) == ("relu", ("input_0",)) and coded.grid is not None
    assert (coded.grid.low, coded.grid.high, coded.grid.zero_point, float(coded.grid.scale)) == (0, 200, 3, 0.5)
    assert found["native_layer_norm#4:0"].reads == ("quantize_per_tensor#1:0",)
    assert found["XnnpackBackend#5:0"].is_opaque and not found["native_layer_norm#4:0"].is_opaque
    recorded = link.run(Inputs(args=(torch.ones(1, 4),)), wanted=("input_0", "quantize_per_tensor#1:0"))
    np.testing.assert_array_equal(recorded.tensors["quantize_per_tensor#1:0"], [[-1.5, 0.0, 1.0, 98.5]])
    np.testing.assert_array_equal(recorded.tensors["input_0"], np.ones((1, 4)))
    assert list(recorded.outputs) == ["output"]


def test_a_program_whose_calls_repeat_shows_its_results_alone() -> None:
    process: Any = Described()
    assert not ExecuTorchLink(Path("a.pte"), process).tensors


def test_a_folder_without_it_is_no_place_to_run_programs(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    with pytest.raises(InputError, match=r"is neither a Python interpreter nor a folder with executorch in it"):
        Elsewhere(str(tmp_path), EXECUTORCH)
