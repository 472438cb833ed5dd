"""torchao's configurations as schemes: the formats, blocks and codes that torchao itself makes of them."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

pytest.importorskip("torchao", reason="package torchao is not installed")

from torchao import quantization as ao
from torchao.quantization import quantize_
from torchao.quantization.granularity import PerAxis, PerGroup, PerTensor

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.fake_quantize import quantize as codes_of
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.torchao.configs import scheme_of, weight_spec

ASYMMETRIC = ao.MappingType.ASYMMETRIC
CONFIGS = {
    "int8": ao.Int8WeightOnlyConfig(),
    "int8 whole": ao.Int8WeightOnlyConfig(granularity=PerTensor()),
    "int8 groups": ao.Int8WeightOnlyConfig(granularity=PerGroup(16)),
    "int4 groups": ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(16)),
    "int2 groups": ao.IntxWeightOnlyConfig(weight_dtype=torch.int2, granularity=PerGroup(8)),
    "int4 affine": ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(16), mapping_type=ASYMMETRIC),
    "int8 affine": ao.IntxWeightOnlyConfig(granularity=PerAxis(0), mapping_type=ASYMMETRIC),
    "float8": ao.Float8WeightOnlyConfig(),
}
SAME_SCALES = ("int4 affine", "int8 affine", "float8")  # torchao's symmetric range ends half a step further out


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


def quantized_by(config: Any) -> QuantizedModel:
    model, x = network(), torch.randn(4, 64)
    return quantize(capture(model, (x,)), scheme_of(config), [(x,)], bias_correction=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_formats_blocks_and_codes_are_those_that_torchao_makes(name: str) -> None:
    theirs = network()
    quantize_(theirs, CONFIGS[name])
    ours = quantized_by(CONFIGS[name])
    for path in ("0.weight", "2.weight"):
        made: Any = theirs.get_parameter(path)
        (qparams,) = (each for ref, each in ours.qparams.items() if str(ref) == path)
        weight = network().get_parameter(path).detach()
        codes = codes_of(weight, qparams).float()
        assert qparams.scale.numel() == made.scale.numel()
        difference = (codes - made.qdata.float()).abs()
        if name in SAME_SCALES:
            torch.testing.assert_close(qparams.scale.flatten(), made.scale.flatten(), rtol=1e-6, atol=0)
            assert (difference > 0).float().mean() < 2e-3  # they multiply by the reciprocal: ties fall otherwise
        else:
            low, high = qparams.spec.code_range
            expected = made.scale.flatten() * (high - low) / (2 * high)
            torch.testing.assert_close(qparams.scale.flatten(), expected, rtol=1e-6, atol=0)
            assert difference.max() <= 1


def test_the_default_of_int4_is_groups_of_128_with_whole_zero_points() -> None:
    spec = weight_spec(ao.Int4WeightOnlyConfig())
    assert (spec.format.name, spec.block_size, spec.symmetric) == ("int4", 128, False)


@pytest.mark.parametrize("name", ["int8", "int4 groups"])
def test_the_file_holds_the_weights_alone_in_codes_and_runs(
    name: str, tmp_path: Path, run_onnx: Callable[..., list[np.ndarray]]
) -> None:
    quantized = quantized_by(CONFIGS[name])
    assert not quantized.plan.activations
    file = export_onnx_qdq(quantized, tmp_path / "weights.onnx")
    x = torch.randn(4, 64)
    (given,) = onnx.load(file).graph.input
    (found,) = run_onnx(file, {given.name: x.numpy()})
    np.testing.assert_allclose(found, quantized.run(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_layers_have_the_configuration_of_their_name() -> None:
    entries = OrderedDict([("0", CONFIGS["int4 groups"]), ("2.weight", CONFIGS["int8"])])
    specs = {str(ref): q.spec for ref, q in quantized_by(ao.FqnToConfig(entries)).qparams.items()}
    assert {path: specs[path].format.name for path in ("0.weight", "2.weight")} == {
        "0.weight": "int4",
        "2.weight": "int8",
    }
    only = quantized_by(ao.FqnToConfig(OrderedDict([("2", CONFIGS["int8"])])))
    assert {str(ref) for ref in only.plan.weights} == {"2.weight"}
    assert "torchao's FqnToConfig, which does not name it" in " ".join(only.plan.kept_float.values())


def test_a_layer_named_with_nothing_stays_in_float() -> None:
    with pytest.warns(UserWarning, match="_default"):
        config = ao.FqnToConfig(OrderedDict([("_default", CONFIGS["int8"]), ("2", None)]))
    only = quantized_by(config)
    assert {str(ref) for ref in only.plan.weights} == {"0.weight"}
    assert "kept in float by torchao's FqnToConfig, key '2'" in only.plan.kept_float.values()


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (ao.Int8DynamicActivationInt8WeightConfig(), "Int8DynamicActivationInt8WeightConfig is no configuration of"),
        (ao.IntxWeightOnlyConfig(weight_dtype=torch.int1), "IntxWeightOnlyConfig: weights of type int1; there are: "),
        (ao.FqnToConfig(OrderedDict([("re:.*", CONFIGS["int8"])])), r"FqnToConfig: key 're:.\*' is a regular"),
        (ao.FqnToConfig(OrderedDict([("0", None)])), r"FqnToConfig\({…}\) names no layer with a configuration"),
    ],
)
def test_what_a_scheme_cannot_say_is_refused(config: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        scheme_of(config)
