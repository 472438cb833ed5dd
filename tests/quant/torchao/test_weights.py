"""Models of torchao's `quantize_` as ours: codes equal; the file runs wherever torchao is installed."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("torchao", reason="package torchao is not installed")

from torchao import quantization as ao
from torchao.quantization import quantize_
from torchao.quantization.granularity import PerGroup

from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import quantize
from bitwright.quant.torchao.weights import import_weights

WEIGHT_ONLY = {
    "int8 rows": (ao.Int8WeightOnlyConfig(), "int8"),
    "float8 rows": (ao.Float8WeightOnlyConfig(), "float8_e4m3fn"),
    "int4 groups": (ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(16)), "int4"),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


@pytest.mark.parametrize("name", WEIGHT_ONLY)
def test_weights_come_with_their_codes(name: str) -> None:
    config, fmt = WEIGHT_ONLY[name]
    model, x = network(), torch.randn(4, 64)
    quantize_(model, config)
    before = {name: each for name, each in model.named_parameters()}
    quantized = import_weights(model, (x,))
    assert {name: each for name, each in model.named_parameters()} == before  # the very same tensors
    assert {str(ref) for ref in quantized.plan.weights} == {"0.weight", "2.weight"}
    for ref, qparams in quantized.qparams.items():
        theirs: Any = model.get_parameter(ref.module_path)
        values = quantized.captured.values[quantized.captured.value_refs[ref]]
        assert qparams.spec.format.name == fmt
        assert torch.equal(quantize(values, qparams).float(), theirs.qdata.float())
        assert torch.equal(qparams.scale.flatten(), theirs.scale.flatten())
    torch.testing.assert_close(quantized.run(x), model(x), rtol=1e-4, atol=1e-5)
    assert not quantized.plan.activations


def test_activations_whose_scales_follow_the_data_do_so_here() -> None:
    """Against integer sums in NumPy, of torchao's codes and of rows in int8 with a scale each."""
    model, x = network()[:1], torch.randn(4, 64)
    plain = model(x).detach().numpy()
    quantize_(model, ao.Int8DynamicActivationInt8WeightConfig())
    quantized = import_weights(model, (x,))
    assert quantized.dynamic and all(each.spec.dynamic for each in quantized.dynamic.values())
    weight: Any = model[0].weight
    scale = x.abs().amax(1, keepdim=True).numpy() / np.float32(127)
    sums = np.rint(x.numpy() / scale).astype(np.int32) @ weight.qdata.numpy().astype(np.int32).T
    expected = sums * scale * weight.scale.numpy().T + model[0].bias.detach().numpy()
    ours = quantized.run(x).detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    # torchao's own scale is 2 max |x| / 255: as much noise, other codes.
    errors = [np.square(each - plain).mean() for each in (ours, model(x).detach().numpy())]
    assert 0.5 < errors[0] / errors[1] < 2.0


def test_a_layer_that_torchao_left_alone_stays_in_float() -> None:
    model, x = network(), torch.randn(4, 64)
    quantize_(model, ao.Int8WeightOnlyConfig(), filter_fn=lambda module, path: path == "2")
    quantized = import_weights(model, (x,))
    assert {str(ref) for ref in quantized.plan.weights} == {"2.weight"}
    assert "torchao, which left its weight alone" in " ".join(quantized.plan.kept_float.values())


def test_a_model_without_any_is_refused() -> None:
    with pytest.raises(InputError, match="has no weight of torchao's"):
        import_weights(network(), (torch.randn(4, 64),))


def test_a_weight_packed_for_one_kernel_is_refused_by_name() -> None:
    from torchao.quantization import Int4Tensor

    model = network()
    parts = (torch.zeros(32, 32, dtype=torch.uint8), torch.ones(2, 32), torch.zeros(2, 32))
    model[0].weight = nn.Parameter(Int4Tensor(*parts, [1, 32], torch.Size([32, 64])), requires_grad=False)
    with pytest.raises(InputError, match=r"^0\.weight: Int4Tensor packs its codes; .*scheme_of\(config\)"):
        import_weights(model, (torch.randn(4, 64),))
