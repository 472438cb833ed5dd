"""What every link promises, whatever runs it: the network's results, its tensors by name, and steadiness."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bitwright.hw_constraints.parity_executorch import ExecuTorchLink
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.hw_constraints.parity_openvino import OpenVINOLink
from bitwright.hw_constraints.parity_tensorrt import TensorRTLink
from bitwright.quant.integer.tflite import TFLITE
from bitwright.quant.parity import LinkError, compare_links
from bitwright.quant.parity.compiled_link import CompiledLink
from bitwright.quant.parity.link import Link
from bitwright.quant.parity.onnx_link import ReferenceLink
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import CapturedLink, EagerLink, IntegerLink, SimulationLink

FLOAT: dict[str, Callable[[Any], Link]] = {
    "eager": lambda chain: EagerLink(chain.module, chain.captured.graph),
    "callable": lambda chain: EagerLink(lambda x: chain.module(x)),
    "captured": lambda chain: CapturedLink(chain.captured),
    "folded": lambda chain: CapturedLink(chain.folded),
    "compiled": lambda chain: CompiledLink(chain.captured, backend="aot_eager"),
    "onnx.reference": lambda chain: ReferenceLink(chain.float_file),
    "onnxruntime": lambda chain: OnnxRuntimeLink(chain.float_file),
    "openvino": lambda chain: OpenVINOLink(chain.float_file),
    "tensorrt": lambda chain: _tensorrt(chain),
    "executorch, portable": lambda chain: _executorch(chain, "portable"),
    "executorch, xnnpack": lambda chain: _executorch(chain, "xnnpack"),
}
FILES = ("onnx.reference", "onnxruntime", "openvino", "tensorrt")


def _tensorrt(chain: Any) -> Link:
    from bitwright.hw_constraints.backends import get_backend

    if reason := get_backend("tensorrt").available():
        pytest.skip(f"TensorRT cannot be used here: {reason}")
    return TensorRTLink(chain.float_file)


def _executorch(chain: Any, kind: str) -> Link:
    if chain.programs is None:
        pytest.skip("ExecuTorch is neither installed nor in .peers/executorch")
    process, folder = chain.programs()
    return ExecuTorchLink(folder / f"{kind}.pte", process)


def _litert(kernels: str) -> Callable[[Any], Link]:
    """The same network in the formats of a `.tflite` file, which are other ones."""

    def make(chain: Any) -> Link:
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'bitwright[litert]'")
        from bitwright.hw_constraints.parity_litert import LiteRTLink

        return LiteRTLink(chain.tflite_file, kernels)

    return make


CODES: dict[str, Callable[[Any], Link]] = {
    "simulation": lambda chain: SimulationLink(chain.quantized),
    "integer": lambda chain: IntegerLink(chain.quantized),
    "onnx.reference": lambda chain: ReferenceLink(chain.quantized_file),
    "onnxruntime": lambda chain: OnnxRuntimeLink(chain.quantized_file),
    "openvino": lambda chain: OpenVINOLink(chain.quantized_file),
    "litert, reference": _litert("reference"),
    "litert, builtin": _litert("builtin"),
    "litert, xnnpack": _litert("xnnpack"),
}


def _marks(name: str) -> list[pytest.MarkDecorator]:
    """Another Python, with another torch, takes many seconds to start."""
    return [pytest.mark.slow] if name.startswith("executorch") else []


@pytest.fixture(
    params=[pytest.param((kind, name), id=name, marks=_marks(name)) for kind in (FLOAT, CODES) for name in kind]
)
def link(request: pytest.FixtureRequest, chain: Any) -> Link:
    kind, name = request.param
    return kind[name](chain)


@pytest.fixture
def reference(request: pytest.FixtureRequest, chain: Any) -> Link:
    """What a link was made from: files have their batch norms folded."""
    kind, name = request.node.callspec.params["link"]
    if name.startswith("litert"):  # whose rounding is its own: the integer reference has it
        return IntegerLink(chain.quantized_for_tflite, arithmetic=TFLITE)
    if kind is CODES:
        return SimulationLink(chain.quantized)
    return CapturedLink(chain.folded if name in FILES else chain.captured)


def test_it_is_the_network(link: Link, reference: Link, chain: Any) -> None:
    found = compare_links(reference, link, chain.inputs)
    assert found.agrees
    assert not link.tensors or len(found.layers) >= (6 if not _has_opaque(link) else 2)


def _has_opaque(link: Link) -> bool:
    return any(each.is_opaque for each in link.tensors.values())


def test_it_gives_what_it_was_asked_for_in_the_shapes_that_it_tells(link: Link, chain: Any) -> None:
    recorded = link.run(chain.inputs[0], wanted=tuple(link.tensors))
    assert set(recorded.tensors) == set(link.tensors)
    told = {name: each.shape for name, each in link.tensors.items() if each.shape is not None}
    assert {name: recorded.tensors[name].shape for name in told} == told
    assert [value.shape for value in recorded.outputs.values()] == [(1, 5)]


def test_its_tensors_come_in_an_order_in_which_they_can_run(link: Link) -> None:
    seen: set[str] = set()
    for name, tensor in link.tensors.items():
        assert all(read in seen for read in tensor.reads if read in link.tensors and read != name)
        seen.add(name)


def test_it_runs_from_the_initial_state_each_time(link: Link, chain: Any) -> None:
    first, second = (link.run(chain.inputs[0]).outputs for _ in range(2))
    assert all(np.array_equal(value, second[name]) for name, value in first.items())


def test_what_is_given_is_what_readers_get(link: Link, chain: Any) -> None:
    if not link.takes_tensors:
        pytest.skip("it does not say that it would")
    last = next(name for name in reversed(link.tensors) if link.tensors[name].reads)
    below = link.tensors[last].reads[-1]
    zeros = np.zeros_like(link.run(chain.inputs[0], wanted=[below]).tensors[below])
    changed = link.run(chain.inputs[0], wanted=[last], given={below: zeros}).tensors[last]
    elsewhere = link.run(chain.inputs[1], wanted=[last], given={below: zeros}).tensors[last]
    assert np.array_equal(changed, elsewhere)  # nothing else of the input comes through
    assert not np.array_equal(changed, link.run(chain.inputs[0], wanted=[last]).tensors[last])


def test_a_nudge_moves_little(link: Link, chain: Any) -> None:
    plain, nudged = (link.run(chain.inputs[0], nudge=nudge).outputs for nudge in (False, True))
    for name, value in plain.items():
        assert np.abs(nudged[name] - value).max() <= 0.1 * np.abs(value).max()


def test_arguments_that_do_not_fit_are_said(link: Link) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        link.run(Inputs(args=()))
    assert isinstance(caught.value, LinkError | ValueError)
