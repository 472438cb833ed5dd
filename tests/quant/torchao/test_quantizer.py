"""Our plan in torchao's flow: coverage and scales are ours; the file runs wherever torchao is installed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("torchao", reason="package torchao is not installed")

from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import quantize as codes_of
from bitwright.quant.formats import FORMATS
from bitwright.quant.fx_nodes import REF
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import BiasKind, QParamsSpec
from bitwright.quant.torchao.quantizer import SchemeQuantizer

SCHEME = load_target("x86-vnni").scheme()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(16, 5)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.body(x) + x)
        x = torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def flow() -> tuple[nn.Module, list[torch.Tensor], SchemeQuantizer, Any]:
    torch.manual_seed(0)
    network = Residual().eval()
    batches = [torch.randn(2, 3, 16, 16) for _ in range(3)]
    quantizer = SchemeQuantizer(SCHEME)
    return network, batches, quantizer, converted(network, batches, quantizer)


def converted(network: nn.Module, batches: list[torch.Tensor], quantizer: Any, **how: Any) -> Any:
    prepared = prepare_pt2e(torch.export.export(network, (batches[0],)).module(), quantizer)
    with torch.no_grad():
        for batch in batches:
            prepared(batch)
    return convert_pt2e(prepared, **how)


def layers_in_codes(module: Any) -> list[str]:
    """The convolutions and linear layers that read codes alone."""
    found = []
    for node in module.graph.nodes:
        name = str(node.target)
        if "conv2d" in name or "linear" in name:
            data, weight = node.args[:2]
            assert ("dequantize" in str(data.target)) == ("dequantize" in str(weight.target))
            found += [name] if "dequantize" in str(data.target) else []
    return found


def test_every_layer_that_the_plan_has_reads_codes(flow: Any) -> None:
    network, batches, quantizer, module = flow
    ours = quantize(capture(network, (batches[0],)), SCHEME, batches, bias_correction=False)
    planned = sum(ours.captured.graph.is_layer(ours.captured.graph.by_name[name]) for name in ours.plan.quantized)
    theirs = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    assert len(layers_in_codes(module)) == planned == 3
    # As many as torchao's own quantizer for the processor takes.
    assert layers_in_codes(module) == layers_in_codes(converted(network, batches, theirs))
    assert quantizer.decided is not None and len(quantizer.decided.quantized) == len(ours.plan.quantized)


def test_the_scales_are_those_of_our_own_flow(flow: Any) -> None:
    network, batches, _, module = flow
    ours = quantize(capture(network, (batches[0],)), SCHEME, batches, bias_correction=False)
    seen = {(float(q.scale), int(q.zero_point)) for ref, q in ours.qparams.items() if ref in ours.plan.activations}
    found = set()
    for node in module.graph.nodes:
        if "quantize_per_tensor" in str(node.target) and "dequantize" not in str(node.target):
            found.add((node.args[1], node.args[2]))
            assert REF in node.args[0].meta
    assert {(np.float32(scale), zero) for scale, zero in found} == {(np.float32(s), z) for s, z in seen}


def test_it_computes_what_our_simulation_computes(flow: Any) -> None:
    network, batches, _, module = flow
    ours = quantize(capture(network, (batches[0],)), SCHEME, batches, bias_correction=False)
    for batch in batches:
        # The result is real: the same codes make the same sums, a code that differs would move it by some 1e-4.
        torch.testing.assert_close(module(batch), ours.run(batch), rtol=0, atol=1e-6)


def test_executorch_runs_it_whole_in_one_delegate_with_the_codes_of_our_simulation() -> None:
    pytest.importorskip("executorch", reason="package executorch is not installed")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    torch.manual_seed(0)
    network, batches = Residual().eval(), [torch.randn(1, 3, 16, 16) for _ in range(3)]
    given = load_target("arm-xnnpack").scheme()
    scheme = replace(given, bias=BiasKind.FLOAT32, quantize_outputs=True)
    module = converted(network, batches, SchemeQuantizer(scheme))
    lowered = to_edge_transform_and_lower(
        torch.export.export(module, (batches[0],)), partitioner=[XnnpackPartitioner()]
    )
    calls = [str(node.target) for node in lowered.exported_program().graph.nodes if node.op == "call_function"]
    assert [call for call in calls if "getitem" not in call] == ["executorch_call_delegate"]
    buffer = lowered.to_executorch().buffer  # the runtime reads it as long as it runs
    method = Runtime.get().load_program(buffer).load_method("forward")
    ours = quantize(capture(network, (batches[0],)), scheme, batches, bias_correction=False)
    for batch in batches:
        torch.testing.assert_close(method.execute([batch])[0], ours.run(batch), rtol=0, atol=1e-6)


def test_litert_torch_converts_it_whole_to_int8_and_litert_computes_our_codes(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="package litert-torch is not installed")
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from litert_torch.quantize.quant_config import QuantConfig

    torch.manual_seed(0)
    network, batches = Residual().eval(), [torch.randn(1, 3, 16, 16) for _ in range(3)]
    scheme = load_target("ethos-u85-1024").scheme()
    quantizer = SchemeQuantizer(replace(scheme, bias=BiasKind.FLOAT32))
    module = converted(network, batches, quantizer, fold_quantize=False)
    edge = litert_torch.convert(module, (batches[0],), quant_config=QuantConfig(pt2e_quantizer=quantizer))
    edge.export(str(tmp_path / "net.tflite"))
    reference = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(str(tmp_path / "net.tflite"), experimental_op_resolver_type=reference)
    interpreter.allocate_tensors()
    assert {each["dtype"] for each in interpreter.get_tensor_details()} <= {np.int8, np.int32}  # biases, shapes
    ours = quantize(capture(network, (batches[0],)), scheme, batches, bias_correction=False)
    graph, (given,), (result,) = ours.captured.graph, interpreter.get_input_details(), interpreter.get_output_details()
    first, last = ours.qparams[graph.inputs[0]], ours.qparams[graph.outputs[0]]
    assert given["quantization"] == (float(first.scale), int(first.zero_point))
    assert result["quantization"] == (float(last.scale), int(last.zero_point))
    for batch in batches:
        interpreter.set_tensor(given["index"], codes_of(batch, first).numpy().astype(np.int8))
        interpreter.invoke()
        # LiteRT multiplies by 31 bits and a shift where the simulation divides: a tie may fall the other way.
        wanted = codes_of(ours.run(batch), last).numpy()
        assert np.abs(interpreter.get_tensor(result["index"]).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("activations", "why"),
    [
        (QParamsSpec(format=FORMATS["float8_e4m3fn"], symmetric=True), "format float8_e4m3fn"),
        (QParamsSpec(format=FORMATS["int8"], symmetric=True, dynamic=True), "a scale that follows the data"),
    ],
)
def test_what_pt2e_cannot_say_is_refused(activations: QParamsSpec, why: str) -> None:
    with pytest.raises(InputError, match=f"{why}.*, which torchao's pt2e cannot say"):
        module = torch.export.export(nn.Linear(3, 2).eval(), (torch.zeros(1, 3),)).module()
        prepare_pt2e(module, SchemeQuantizer(replace(SCHEME, activations=activations)))
