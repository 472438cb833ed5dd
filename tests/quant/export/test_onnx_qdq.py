"""The file against the network it was made from: in float, in codes, tensor by tensor, over frames, by its names."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq, storage_format
from bitwright.quant.formats import FORMATS, FloatFormat
from bitwright.quant.graph import TensorRef
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Override, QParamsSpec, QuantScheme

Run = Callable[..., list[np.ndarray]]
Example = Any  # of conftest.py


def feeds(captured: CapturedModel, args: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
    return {value_name(ref): tensor.numpy() for ref, tensor in zip(captured.graph.inputs, args, strict=True)}


def flat(captured: CapturedModel, result: Any) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in captured.outputs(result)]


def test_the_float_file_computes_what_the_model_does(example: Example, tmp_path: Path, run_onnx: Run) -> None:
    captured, args = example.captured, example.args
    path = export_float(captured.graph, tmp_path / "float.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    with torch.no_grad():
        expected = flat(captured, example.model(*args))
    for optimize in (False, True):
        for ours, theirs in zip(run_onnx(path, feeds(captured, args), optimize=optimize), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def observable(path: Path, quantized: QuantizedModel) -> tuple[onnx.ModelProto, list[TensorRef]]:
    """The file with every DQ of an activation as a result, too."""
    model = onnx.load(path)
    made = {output for node in model.graph.node for output in node.output}
    refs = [ref for ref in quantized.plan.activations if f"{value_name(ref)}/dq" in made]
    known = {output.name for output in model.graph.output}
    for ref in refs:
        if f"{value_name(ref)}/dq" not in known:
            model.graph.output.append(
                onnx.helper.make_tensor_value_info(f"{value_name(ref)}/dq", TensorProto.FLOAT, None)
            )
    return model, refs


def share_of_equal_codes(
    quantized: QuantizedModel, path: Path, args: tuple[torch.Tensor, ...], run_onnx: Run
) -> tuple[float, float]:
    """Each tensor of the simulation, computed from the file's own codes, against the file.

    A value that lies on a tie up to the last bits of float32 counts as equal to either of its neighbours: sums in
    another order, and another processor's exp, turn such ties over.

    Returns:
        The share of equal codes, and the largest distance in codes.
    """
    model, refs = observable(path, quantized)
    names = [f"{value_name(ref)}/dq" for ref in refs]
    truth = dict(zip(refs, run_onnx(model, feeds(quantized.captured, args), names), strict=True))
    equal, total, most = 0, 0, 0.0

    def compare(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        nonlocal equal, total, most
        ours = quantized.transform(ref, tensor)
        if ref not in truth:
            return ours
        theirs = torch.from_numpy(truth[ref])
        same = ours == theirs
        if not isinstance(quantized.qparams[ref].spec.format, FloatFormat):
            scale = quantized.qparams[ref].scale
            most = max(most, float((ours - theirs).abs().max() / scale))
            from_tie = ((tensor / scale - 0.5) - (tensor / scale - 0.5).round()).abs()
            same |= from_tie <= 1e-5 * (1 + (tensor / scale).abs())
        equal += int(same.sum())
        total += ours.numel()
        return theirs

    quantized.run(*args, transform=compare)
    assert set(truth) == set(refs)
    return equal / total, most


@pytest.mark.parametrize(
    ("activation", "weight"), [("uint8", "int8"), ("int8", "int8"), ("int16", "int8"), ("uint8", "int4")]
)
def test_the_quantized_file_has_the_codes_of_the_simulation(
    example: Example, activation: str, weight: str, make_scheme: Any, tmp_path: Path, run_onnx: Run
) -> None:
    quantized = example.quantized(make_scheme(activation, weight))
    path = export_onnx_qdq(quantized, tmp_path / "model.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    equal, most = share_of_equal_codes(quantized, path, example.args, run_onnx)
    # Sums in another order can turn a tie over: by one code, once in ten thousand; 16 bits have 256 times the ties.
    assert equal >= (0.9999 if activation != "int16" else 0.98)
    assert most <= 1.001


def test_the_fp8_file_has_the_codes_of_the_simulation(
    example: Example, fp8: QuantScheme, tmp_path: Path, run_onnx: Run
) -> None:
    quantized = example.quantized(fp8)
    path = export_onnx_qdq(quantized, tmp_path / "model.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    assert onnx.load(path).opset_import[0].version >= 21
    equal, _ = share_of_equal_codes(quantized, path, example.args, run_onnx)
    assert equal >= 0.9999
    # Left to itself, ONNX Runtime fuses fp8 into kernels that it does not have.
    inputs = feeds(quantized.captured, example.args)
    results = run_onnx(path, inputs, optimize=True, disable_quant_qdq="1")
    assert all(np.isfinite(result).all() for result in results)


@pytest.mark.parametrize(
    ("opset", "settings"), [(20, {}), (21, {"qdqisint8allowed": "1"}), (23, {"qdqisint8allowed": "1"})]
)
def test_symmetric_int8_loads_with_optimizations(
    opset: int, settings: dict[str, str], example: Example, make_scheme: Any, tmp_path: Path, run_onnx: Run
) -> None:
    """From opset 21 on, ONNX Runtime stumbles over its own rewrite of s8 to u8, unless it is told to leave s8 alone."""
    quantized = example.quantized(make_scheme("int8", "int8"))
    path = export_onnx_qdq(quantized, tmp_path / "model.onnx", opset=opset)
    inputs = feeds(quantized.captured, example.args)
    ours = flat(quantized.captured, quantized.run(*example.args))
    for theirs, own in zip(run_onnx(path, inputs, optimize=True, **settings), ours, strict=True):
        assert theirs.shape == own.shape


def test_int8_is_written_at_opset_20(make_scheme: Any, tmp_path: Path) -> None:
    x = torch.randn(2, 4)
    quantized = quantize(capture(nn.Linear(4, 4), (x,)), make_scheme("int8", "int8"), [x])
    assert onnx.load(export_onnx_qdq(quantized, tmp_path / "model.onnx")).opset_import[0].version == 20


def test_the_reference_implementation_agrees(make_scheme: Any, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(72, 3)).eval()
    x = torch.randn(1, 3, 8, 8)
    for scheme in (make_scheme("uint8", "int8"), make_scheme("float8_e4m3fn", "float8_e4m3fn")):
        quantized = quantize(capture(model, (x,)), scheme, [x])
        path = export_onnx_qdq(quantized, tmp_path / "model.onnx")
        (theirs,) = ReferenceEvaluator(str(path)).run(None, {"input": x.numpy()})
        np.testing.assert_allclose(theirs, quantized.run(x).numpy(), atol=2e-3)


# --- what is written ---


def initializers(path: Path) -> Mapping[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}


def test_weights_are_codes_and_biases_int32_with_the_product_of_scales(u8s8: QuantScheme, tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), torch.randn(1, 3, 8, 8)
    quantized = quantize(capture(model, (x,)), u8s8, [x])
    values = initializers(export_onnx_qdq(quantized, tmp_path / "model.onnx"))
    assert values["0.weight/codes"].dtype == np.int8
    assert np.abs(values["0.weight/codes"]).max(axis=(1, 2, 3)).tolist() == [127] * 4
    bias_codes = next(name for name in values if name.startswith("0.bias/") and name.endswith("/codes"))
    bias_scale = values[bias_codes.replace("codes", "scale")]
    assert values[bias_codes].dtype == np.int32
    np.testing.assert_array_equal(bias_scale, values["input/scale"] * values["0.weight/scale"])


def test_fp8_weights_are_those_of_ml_dtypes(fp8: QuantScheme, tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), torch.randn(1, 3, 8, 8)
    weight = model[0].weight.detach().numpy()
    values = initializers(export_onnx_qdq(quantize(capture(model, (x,)), fp8, [x]), tmp_path / "model.onnx"))
    scale = np.abs(weight).max(axis=(1, 2, 3)).astype(np.float64) / 448
    np.testing.assert_array_equal(values["0.weight/scale"], scale.astype(np.float32))
    expected = np.clip(weight / values["0.weight/scale"][:, None, None, None], -448, 448).astype(
        ml_dtypes.float8_e4m3fn
    )
    np.testing.assert_array_equal(values["0.weight/codes"].view(np.uint8), expected.view(np.uint8))


def test_one_tensor_has_one_q_and_one_dq(example: Example, u8s8: QuantScheme, tmp_path: Path) -> None:
    quantized = example.quantized(u8s8)
    model = onnx.load(export_onnx_qdq(quantized, tmp_path / "model.onnx"))
    quantizers = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(quantizers) == sorted({f"{value_name(ref)}/q" for ref in quantized.plan.activations})


def test_provenance_names_every_value(example: Example, u8s8: QuantScheme, tmp_path: Path) -> None:
    quantized = example.quantized(u8s8)
    path = export_onnx_qdq(quantized, tmp_path / "model.onnx")
    provenance = json.loads(path.with_suffix(".provenance.json").read_text())
    model = onnx.load(path)
    values = {name for node in model.graph.node for name in (*node.input, *node.output) if name}
    values |= {item.name for item in [*model.graph.input, *model.graph.output, *model.graph.initializer]}
    assert {name.split("/")[0] for name in values} <= set(provenance["values"])
    assert all(TensorRef.parse(text) in quantized.captured.graph.tensors for text in provenance["values"].values())
    assert provenance["outputs"] == [output.name for output in model.graph.output]
    assert set(provenance["sources"]) == {value_name(n.outputs[0]) for n in quantized.captured.graph.nodes if n.source}


def test_formats_narrower_than_their_container_are_clipped(u8s8: QuantScheme, tmp_path: Path, run_onnx: Run) -> None:
    """5-bit activations in int8: values beyond the 5-bit range must not use the other codes."""
    narrow = QParamsSpec(format=FORMATS["int5"], symmetric=True)
    scheme = u8s8.with_overrides(Override(module="*", activations=narrow))
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval(), torch.randn(8, 4)
    quantized = quantize(capture(model, (x,)), scheme, [x / 4])
    path = export_onnx_qdq(quantized, tmp_path / "model.onnx")
    equal, _ = share_of_equal_codes(quantized, path, (x,), run_onnx)
    assert equal == 1.0
    assert storage_format(FORMATS["int5"]) == "int8"


def test_a_bias_beside_a_dead_channel_survives(u8s8: QuantScheme, tmp_path: Path, run_onnx: Run) -> None:
    """A batch norm with a vanishing gamma leaves weights of 1e-20 and a bias of 1: 1e22 codes do not fit into int32."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)).eval()
    with torch.no_grad():
        model[1].weight[0] = 1e-20
        model[1].bias[0] = 1.0
    x = torch.randn(1, 3, 8, 8)
    quantized = quantize(capture(model, (x,)), u8s8, [x])
    middle = quantized.captured.graph.nodes[0].outputs[0]
    seen: dict[TensorRef, torch.Tensor] = {}
    quantized.run(x, transform=lambda ref, tensor: seen.setdefault(ref, quantized.transform(ref, tensor)))
    assert float((seen[middle][0, 0] - 1).abs().max()) <= float(quantized.qparams[middle].scale)
    equal, _ = share_of_equal_codes(quantized, export_onnx_qdq(quantized, tmp_path / "m.onnx"), (x,), run_onnx)
    assert equal == 1.0


def test_a_layer_kept_in_float_reads_the_shared_weight_in_float(
    u8s8: QuantScheme, tmp_path: Path, run_onnx: Run
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).eval()
    model[2].weight = model[0].weight
    scheme = u8s8.with_overrides(Override(module="2", keep_float=True))
    x = torch.randn(8, 4)
    quantized = quantize(capture(model, (x,)), scheme, [x], bias_correction=False)
    values = initializers(export_onnx_qdq(quantized, tmp_path / "model.onnx"))
    (name,) = (name for name, value in values.items() if value.shape == (4, 4) and value.dtype == np.float32)
    np.testing.assert_array_equal(values[name], model[0].weight.detach().numpy())
    assert f"{name}/codes" in values
    (theirs,) = run_onnx(tmp_path / "model.onnx", {"input": x.numpy()})
    np.testing.assert_allclose(theirs, quantized.run(x).numpy(), atol=1e-5)


# --- state ---


@pytest.mark.parametrize("kind", ["float", "uint8", "float8_e4m3fn"])
def test_state_goes_in_and_out_over_five_frames(
    kind: str, recurrent: nn.Module, make_scheme: Any, tmp_path: Path, run_onnx: Run
) -> None:
    frames = torch.randn(5, 1, 4, 8, 8)
    captured = capture(recurrent, (frames[0],))
    path = tmp_path / "model.onnx"
    if kind == "float":
        export_float(captured.graph, path)
        simulate: Any = captured.run
    else:
        quantized = quantize(captured, make_scheme(kind, kind.replace("uint8", "int8")), list(frames))
        export_onnx_qdq(quantized, path)
        simulate = quantized.run
    onnx.checker.check_model(str(path), full_check=True)
    provenance = json.loads(path.with_suffix(".provenance.json").read_text())
    wiring = [(pair["input"], pair["output"]) for pair in provenance["state"]]
    assert [before for before, _ in wiring] == ["memory", "frames"]
    state, fed = captured.initial_state(), {}
    for number, frame in enumerate(frames):
        expected = simulate(frame, state=state)
        names = [*provenance["outputs"], *(after for _, after in wiring)]
        # The first frame takes the state from the file.
        result, *after = run_onnx(path, {"x": frame.numpy(), **fed}, names)
        fed = {before: value for (before, _), value in zip(wiring, after, strict=True)}
        assert int(fed["frames"]) == number + 1
        step = 0.0 if kind == "float" else 0.05 * float(expected.abs().max())
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-4, atol=1e-4 + step)


# --- what is refused ---


@pytest.fixture
def small(u8s8: QuantScheme) -> QuantizedModel:
    x = torch.randn(2, 4)
    return quantize(capture(nn.Linear(4, 4), (x,)), u8s8, [x])


def test_an_operator_without_translation_is_named_with_its_line(tmp_path: Path) -> None:
    class Inverse(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(x) + torch.fft.fft(x).real

    captured = capture(Inverse(), (torch.eye(3),))
    with pytest.raises(
        InputError, match=rf"no ONNX translation for these operators:\n.*inv.*{Path(__file__).name}:\d+"
    ):
        export_float(captured.graph, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_an_opset_that_does_not_exist_is_refused(small: QuantizedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="opset = 11; allowed: 18, 19, 20"):
        export_float(small.captured.graph, tmp_path / "model.onnx", opset=11)


def test_an_opset_too_small_for_the_formats_is_refused(fp8: QuantScheme, tmp_path: Path) -> None:
    x = torch.randn(2, 4)
    quantized = quantize(capture(nn.Linear(4, 4), (x,)), fp8, [x])
    with pytest.raises(InputError, match="opset = 20; the formats of this model need at least 21"):
        export_onnx_qdq(quantized, tmp_path / "model.onnx", opset=20)


def test_an_input_and_a_parameter_of_one_name_are_refused(tmp_path: Path) -> None:
    class Clash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.x

    captured = capture(Clash(), (torch.ones(3),))
    with pytest.raises(
        InputError, match="input 'x' and parameter 'x' would have one name in the file; rename one of them"
    ):
        export_float(captured.graph, tmp_path / "model.onnx")
