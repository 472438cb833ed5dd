"""Geometry stays out of codes by plan; a file that has it in codes, and indices that moved, are found one by one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.parity_measures import moved_places, quantized_places
from bitwright.quant.parity_measures.places import place_tensors
from bitwright.quant.plan import plan
from bitwright.quant.ptq import quantize
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme


class Lift(nn.Module):
    """Features sampled where points of a bird's-eye grid fall in the image, and pooled into voxels."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.register_buffer("points", torch.rand(1, 64, 3) * 2 + 0.5)
        self.register_buffer("intrinsics", torch.eye(3) + 0.1)

    def forward(self, x: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        camera = self.points @ pose @ self.intrinsics
        grid = (camera[..., :2] / camera[..., 2:].clamp(min=0.1)).view(1, 8, 8, 2) - 1
        sampled = F.grid_sample(self.features(x), grid, align_corners=False)
        cells = (camera[..., 0] * 4).long().clamp(0, 15)
        voxels = torch.zeros(1, 8, 16).scatter_add(2, cells.unsqueeze(1).expand(1, 8, 64), sampled.flatten(2))
        return self.head(voxels.view(1, 8, 4, 4))


@pytest.fixture(name="example", scope="module")
def _example() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(1, 3, 8, 8), torch.eye(3)[None] + 0.05 * torch.randn(1, 3, 3)


@pytest.fixture(name="quantized", scope="module")
def _quantized(example: tuple[torch.Tensor, ...], u8s8: QuantScheme) -> QuantizedModel:
    torch.manual_seed(1)
    return quantize(capture(Lift().eval(), example), u8s8, [example])


def test_projections_by_matrices_stay_in_float(quantized: QuantizedModel) -> None:
    graph = quantized.captured.graph
    products = [node for node in graph.nodes if node.op == "matmul"]
    assert len(products) == 2
    for node in products:
        assert node.name not in quantized.plan.quantized
        assert quantized.plan.kept_float[node.name] == "computes indices or coordinates"
    named = {str(ref) for ref in place_tensors(graph)}
    assert {"points", "intrinsics", "$pose"} <= named
    assert not {"$x", "features.weight"} & named
    assert quantized_places(graph, quantized.plan) == ()
    assert any(graph.is_layer(node) and node.name in quantized.plan.quantized for node in graph.nodes)


def test_no_place_moves_by_quantization(quantized: QuantizedModel, example: tuple[torch.Tensor, ...]) -> None:
    float_places, coded = places_of(quantized, example, codes=False), places_of(quantized, example, codes=True)
    assert float_places.keys() == coded.keys()
    assert all(np.array_equal(float_places[name], coded[name]) for name in coded)
    assert moved_places(quantized.captured.graph, float_places, coded) == ()


def places_of(quantized: QuantizedModel, example: tuple[torch.Tensor, ...], *, codes: bool) -> dict[str, np.ndarray]:
    """Every tensor that says where, as its readers see it."""
    wanted = set(place_tensors(quantized.captured.graph))
    found = {}

    def note(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        seen = quantized.transform(ref, tensor) if codes else tensor
        if ref in wanted:
            found[value_name(ref)] = seen.numpy().copy()
        return seen

    quantized.run(*example, transform=note)
    return found


def test_a_file_with_coordinates_in_codes(example: tuple[torch.Tensor, ...], u8s8: QuantScheme, tmp_path: Path) -> None:
    """What a toolkit without a notion of geometry writes: every product in codes."""
    captured = capture(Lift().eval(), example)
    file = export_onnx_qdq(careless(captured.graph, quantize(captured, u8s8, [example])), tmp_path / "careless.onnx")
    imported = graph_from_onnx(file)
    assert imported.plan is not None
    found = quantized_places(imported.graph, imported.plan)
    assert {each.op for each in found} & {"matmul", "div", "sub"}
    assert all("a place in uint8" in each.found for each in found if each.op)
    assert len({each.tensor for each in found}) == len(found) >= 2


def careless(graph: Graph, sound: QuantizedModel) -> QuantizedModel:
    """The same with the projection planned as any other product, by names that no rule knows."""
    spec = sound.plan.scheme.activations
    products = [node for node in graph.nodes if node.op == "matmul"]
    refs = [ref for node in products for ref in node.outputs]
    qparams = choose_qparams(torch.tensor(-4.0), torch.tensor(4.0), spec)
    coded = replace(
        sound.plan,
        activations={**sound.plan.activations, **dict.fromkeys(refs, spec)},
        quantized=sound.plan.quantized | {node.name for node in products},
    )
    return replace(sound, plan=coded, qparams={**sound.qparams, **dict.fromkeys(refs, qparams)})


def test_each_moved_index_is_a_finding_where_it_begins_to(example: tuple[torch.Tensor, ...], u8s8: QuantScheme) -> None:
    captured = capture(Lift().eval(), example)
    sound = quantize(captured, u8s8, [example])
    wrong = careless(captured.graph, sound)
    found = moved_places(captured.graph, places_of(sound, example, codes=True), places_of(wrong, example, codes=True))
    assert found
    assert "indices moved, by" in found[0].found
    assert Path(__file__).name in found[0].source
    cells = [each for each in found if "scatter_add" in each.read_by]
    assert len(cells) == 1


def test_a_learned_layer_in_front_of_a_place_is_quantized_and_its_result_is_not(
    example: tuple[torch.Tensor, ...], u8s8: QuantScheme
) -> None:
    class Deform(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offsets, self.value = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.grid_sample(self.value(x), self.offsets(x).permute(0, 2, 3, 1).tanh(), align_corners=False)

    graph = capture(Deform().eval(), (example[0],)).graph
    planned = plan(graph, u8s8)
    convs = [node for node in graph.nodes if node.op == "conv2d"]
    assert all(node.name in planned.quantized for node in convs)
    assert [str(ref) for ref in place_tensors(graph) if ref in planned.activations] == []
