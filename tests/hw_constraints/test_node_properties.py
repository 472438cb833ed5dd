"""Properties of nodes, against what PyTorch's own modules say of themselves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.hw_constraints.node_properties import properties
from bitwright.hw_constraints.operators import OPERATORS, properties_of
from bitwright.hw_constraints.predicate import Value
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.capture import capture


def of(model: torch.nn.Module, *shape: int) -> dict[str, Value]:
    graph = capture(model, (torch.randn(*shape),)).graph
    (node,) = graph.nodes
    known = properties(graph, node)
    assert known.keys() == properties_of(node.op)
    return known


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([1, 2, 4]),
    st.tuples(*[st.integers(1, 4)] * 2),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.integers(1, 2),
)
def test_convolution(groups: int, kernel: tuple[int, int], stride: tuple[int, int], dilation: int) -> None:
    model = torch.nn.Conv2d(8, 12, kernel, stride, padding=1, dilation=dilation, groups=groups)
    known = of(model, 2, 8, 16, 20)
    assert (known["kernel_h"], known["kernel_w"]) == kernel and known["kernel_d"] == 1
    assert (known["stride_h"], known["stride_w"]) == stride and known["dilation_w"] == dilation
    assert (known["in_channels"], known["out_channels"], known["groups"]) == (8, 12, groups)
    assert known["taps"] == model.weight[0].numel()
    assert (known["out_height"], known["out_width"]) == tuple(model(torch.randn(2, 8, 16, 20)).shape[2:])
    assert (known["batch"], known["channels"], known["height"], known["width"]) == (2, 8, 16, 20)


def test_depthwise_and_transposed() -> None:
    assert of(torch.nn.Conv1d(6, 6, 3, groups=6), 1, 6, 10)["depthwise"] is True
    known = of(torch.nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4), 1, 8, 10, 10)
    assert (known["in_channels"], known["out_channels"], known["channels_per_group"]) == (8, 12, 2)
    assert (known["height"], known["out_height"]) == (10, 20)


def test_pools() -> None:
    known = of(torch.nn.MaxPool2d(3, padding=1), 1, 4, 16, 16)
    assert (known["kernel_h"], known["stride_h"], known["padding_w"]) == (3, 3, 1)
    known = of(torch.nn.AvgPool2d((2, 3), stride=1), 1, 4, 16, 16)
    assert (known["kernel_h"], known["kernel_w"], known["stride_w"]) == (2, 3, 1)
    known = of(torch.nn.AdaptiveAvgPool2d((4, 5)), 1, 4, 16, 16)
    assert (known["kernel_h"], known["stride_h"]) == (4, 4) and known["kernel_w"] != known["stride_w"]


def test_linear_resize_and_reductions() -> None:
    known = of(torch.nn.Linear(7, 9), 3, 5, 7)
    assert (known["in_features"], known["out_features"], known["rows"]) == (7, 9, 15)
    known = of(torch.nn.Upsample(scale_factor=(2, 3)), 1, 4, 8, 8)
    assert (known["scale_h"], known["scale_w"], known["align_corners"]) == (2, 3, False)
    known = of(torch.nn.Upsample(size=(12, 16), mode="bilinear", align_corners=True), 1, 4, 8, 8)
    assert (known["scale_h"], known["scale_w"], known["align_corners"]) == (0, 2, True)
    known = of(torch.nn.Softmax(dim=-1), 2, 3, 4)
    assert (known["axis"], known["rows"]) == (2, 6)


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 3))


def test_mean() -> None:
    known = of(Mean(), 2, 3, 4, 5)
    assert (known["reduced_elements"], known["largest_reduced_dim"]) == (15, 5)


def test_open_dimensions_stay_open() -> None:
    b = GraphBuilder()
    graph = b.graph(b.call("softmax", b.input(None, 3, 8), shape=(None, 3, 8), dim=-1))
    known = properties(graph, graph.nodes[0])
    assert known["batch"] is None and known["rows"] is None and known["elements"] is None
    assert known["channels"] == 3 and known["axis"] == 2


@pytest.mark.parametrize("op", sorted(OPERATORS))
def test_every_named_property_is_computed_for_every_operator(op: str) -> None:
    b = GraphBuilder()
    x, w = b.input(1, 4, 8, 8), b.parameter(4, 4, 3, 3)
    graph = b.graph(b.call(op, x, w, shape=(1, 4, 8, 8), dim=1, kernel_size=[2, 2]))
    assert properties(graph, graph.nodes[0]).keys() == properties_of(op)
