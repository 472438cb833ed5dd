"""What of each kind of network is in codes on three targets; what is not says why; the file computes what was meant.

The truth of results is ONNX Runtime, which runs each exported file as written, and the float network.
"""

import importlib.util
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.hw_constraints.operators import MOVEMENTS, MULTIPLICATIONS
from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.hw_constraints.target_types import Capability
from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel

_SPEC = importlib.util.spec_from_file_location("coverage_networks", Path(__file__).with_name("coverage_networks.py"))
assert _SPEC and _SPEC.loader
_NETWORKS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_NETWORKS)
NETWORKS = _NETWORKS.NETWORKS

TARGETS = ("x86-vnni", "tensorrt-orin", "hexagon-htp")
EVERY_TARGET = [name for name in list_targets() if Capability.SCHEME in load_target(name).capabilities]

# Operators that compute in float, by network and target: those that the target has no kernel in codes for.
IN_FLOAT: dict[str, tuple[str, str, str]] = {
    "conv1d": ("", "", ""),
    "conv2d": ("", "", ""),
    "conv3d": ("max_pool3d", "", "max_pool3d"),
    "transposed1d": ("conv_transpose1d", "", "conv_transpose1d"),
    "transposed2d": ("conv_transpose2d relu", "", ""),
    "transposed3d": ("conv_transpose3d", "", "conv_transpose3d"),
    "grouped": ("", "", ""),
    "depthwise": ("", "", ""),
    "linear": ("", "", ""),
    "matmul": ("", "softmax", ""),
    "attention": ("layer_norm layer_norm", "layer_norm layer_norm mul softmax", ""),
    "sdpa": ("", "mul softmax", ""),
    "embedding": ("embedding mean", "embedding mean", "embedding"),
    "lstm": (" ".join(["tanh"] * 8), " ".join([*["sigmoid", "mul"] * 12, *["tanh"] * 8]), ""),
    "gru": (" ".join(["tanh", "sub"] * 4), " ".join([*["sigmoid", "mul"] * 8, *["tanh", "sub"] * 4]), ""),
    "norm_softmax_gelu": ("gelu layer_norm", "gelu layer_norm softmax", ""),
    "residual": ("", "", ""),
    "concat": ("", "", ""),
    "pyramid": ("", "", ""),
    "state": ("tanh", "tanh", ""),
}


@cache
def captured(name: str) -> tuple[CapturedModel, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    network, args = NETWORKS[name]()
    return capture(network.eval(), args), args


@cache
def planned(name: str, target: str) -> tuple[Graph, QuantPlan]:
    scheme = load_target(target).scheme()
    graph = fit_scheme(captured(name)[0], scheme).graph
    return graph, plan(graph, scheme)


def floating(graph: Graph, decided: QuantPlan) -> list[Any]:
    return [
        node
        for node in graph.nodes
        if node.name not in decided.quantized and any(graph.tensors[ref].is_floating for ref in node.outputs)
    ]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", EVERY_TARGET)
def test_nothing_is_in_float_without_a_reason(name: str, target: str) -> None:
    graph, decided = planned(name, target)
    in_codes = {*decided.activations, *decided.weights}
    for node in floating(graph, decided):
        if decided.kept_float.get(node.name):
            continue
        # It computes nothing, and what it moves has no codes: the operator in front of it has said why.
        assert node.op in MOVEMENTS, node
        assert any(ref not in in_codes for ref in node.tensors if graph.tensors[ref].is_floating), node


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_in_float_is_what_the_target_has_no_kernel_for(name: str, target: str) -> None:
    graph, decided = planned(name, target)
    found = Counter(node.op for node in floating(graph, decided) if node.op not in MOVEMENTS)
    assert found == Counter(IN_FLOAT[name][TARGETS.index(target)].split())
    for node in floating(graph, decided):
        if node.op in found:
            assert decided.kept_float[node.name] == f"scheme {target!r} has no quantized {node.op!r}"
    multiplied = [node for node in graph.nodes if node.op in MULTIPLICATIONS and node.op not in found]
    assert all(node.name in decided.quantized for node in multiplied)


@cache
def quantized(name: str, target: str) -> tuple[QuantizedModel, tuple[torch.Tensor, ...], Any]:
    network, args = captured(name)
    torch.manual_seed(0)
    batches = [args] if not args[0].is_floating_point() else [tuple(map(torch.randn_like, args)) for _ in range(3)]
    made = quantize(network, load_target(target).scheme(), [*batches, args])
    return made, args, network.outputs(network.run(*args))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_file_computes_what_was_meant(
    name: str, target: str, tmp_path: Path, run_onnx: Callable[..., list[np.ndarray]]
) -> None:
    model, args, truth = quantized(name, target)
    path = export_onnx_qdq(model, tmp_path / "model.onnx")
    feeds = {value_name(ref): x.numpy() for ref, x in zip(model.captured.graph.inputs, args, strict=True)}
    simulated = model.captured.outputs(model.run(*args))
    ran_all = run_onnx(path, feeds)[-len(simulated) :]  # behind what the memory is afterwards
    for ran, ours, plain in zip(ran_all, simulated, truth, strict=True):
        noise = float((ours - plain).square().mean())
        # A tie that falls the other way moves a result by a step, as rounding itself does.
        assert float(np.square(ran - ours.numpy()).mean()) < 0.3 * noise + 1e-12
        assert 10 * np.log10(float(plain.square().mean()) / noise) > 20.0


def test_a_head_that_levels_share_has_one_grid_for_its_weights_and_one_for_each_level() -> None:
    model, _, _ = quantized("pyramid", "x86-vnni")
    heads = [node for node in model.captured.graph.nodes if node.op == "conv2d" and node.module_path == "head"]
    assert len(heads) == 3 and len({node.inputs[1] for node in heads}) == 1
    assert len({float(model.qparams[node.tensors[0]].scale) for node in heads}) == 3


@pytest.mark.parametrize("shared", [True, False])
def test_parts_of_a_concatenation_have_one_grid_or_their_own(
    shared: bool, tmp_path: Path, run_onnx: Callable[..., list[np.ndarray]]
) -> None:
    torch.manual_seed(0)
    network, args = NETWORKS["concat"]()
    network.right.weight.data *= 50.0
    scheme = load_target("x86-vnni").scheme()
    if not shared:  # an accelerator that brings codes to the grid of the whole
        scheme = replace(
            scheme,
            quantized_operators=scheme.quantized_operators | {"cat"},
            shared_qparams_operators=scheme.shared_qparams_operators - {"cat"},
        )
    model = quantize(capture(network.eval(), args), scheme, [args])
    (joined,) = (node for node in model.captured.graph.nodes if node.op == "cat")
    left, right, whole = (model.qparams[ref] for ref in (*joined.tensors, *joined.outputs))
    assert (float(left.scale) == float(right.scale) == float(whole.scale)) is shared
    assert shared or float(right.scale) > 10 * float(left.scale)
    (ran,) = run_onnx(export_onnx_qdq(model, tmp_path / "model.onnx"), {"x": args[0].numpy()})
    np.testing.assert_allclose(ran, model.run(*args).numpy(), atol=0.02 * float(model.run(*args).abs().max()))


def test_a_memory_is_read_in_codes_and_goes_on_over_frames(
    tmp_path: Path, run_onnx: Callable[..., list[np.ndarray]]
) -> None:
    model, args, _ = quantized("state", "hexagon-htp")
    path = export_onnx_qdq(model, tmp_path / "model.onnx")
    ((before, _),) = model.captured.graph.state
    state, kept = model.captured.initial_state(), model.captured.initial_state()
    (memory,) = (value.numpy() for value in kept.values())
    for _ in range(3):
        feeds = {value_name(model.captured.graph.inputs[0]): args[0].numpy(), value_name(before): memory}
        memory, ran = run_onnx(path, feeds)
        ours = model.run(*args, state=state)
        assert np.abs(ran - ours.numpy()).max() < 0.05 * float(ours.abs().max())
    assert float(next(iter(state.values())).abs().max()) > 0
