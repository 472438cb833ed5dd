import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback, QATSchedule, with_formats
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme

from .conftest import batch


def four_bits() -> QuantScheme:
    return with_formats(load_target("x86-vnni").scheme(), weights="int4")


def after_training(model: nn.Module, scheme: QuantScheme, **options: object) -> QuantizedModel:
    model.eval()
    return quantize(capture(model, (batch(1)[0],)), scheme, [batch(1, seed=each)[0] for each in range(8)], **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"equalization": True, "rounding": "gptq"}],
    ids=["nearest", "equalized_gptq"],
)
def test_training_starts_at_the_quantized_network(everything: nn.Module, options: dict[str, object]) -> None:
    quantized = after_training(everything, four_bits(), **options)
    names = list(everything.state_dict())
    qat = QATCallback(everything, torch.optim.Adam(everything.parameters()), scheme=four_bits(), calibration=[batch()])
    qat.warm_start(quantized)
    everything.eval()
    for seed in range(4):
        x = batch(1, seed=70 + seed)[0]
        # Weights go through a division by the batch norm's factor and back, so a bias may fall on its neighbour code.
        torch.testing.assert_close(everything(x), quantized.run(x), atol=1e-3, rtol=1e-3)
    everything.train()
    x, labels = batch()
    F.cross_entropy(everything(x), labels).backward()
    assert qat.optimizer is not None
    qat.optimizer.step()
    qat.on_step()
    qat.finish()
    assert list(everything.state_dict()) == names


def test_latent_weights_begin_near_what_they_were_before_they_were_rounded(everything: nn.Module) -> None:
    rounded = after_training(everything, four_bits(), rounding="gptq")
    unrounded = after_training(everything, four_bits())
    optimizer = torch.optim.Adam(everything.parameters())
    qat = QATCallback(everything, optimizer, scheme=four_bits(), calibration=[batch()])
    qat.warm_start(rounded, unrounded)
    off = []
    for weight, layer in zip(qat.scheduled.weights(), qat.replay.parts.layers, strict=True):
        scaled = weight.parameter.detach() / weight.divisor
        wanted = (rounded.captured.values[rounded.captured.value_refs[layer.weight]] / weight.divisor).round()
        wanted = wanted.clamp(weight.grid.low, weight.grid.high)
        assert torch.equal(scaled.round(), wanted)
        before = unrounded.captured.values[unrounded.captured.value_refs[layer.weight]] / weight.divisor
        torch.testing.assert_close(scaled - wanted, (before - wanted).clamp(-0.4, 0.4), atol=1e-4, rtol=0)
        off.append((scaled - wanted).abs().mean())
    assert torch.stack(off).mean() > 0.15


def test_batch_norms_must_be_frozen(everything: nn.Module) -> None:
    quantized = after_training(everything, four_bits())
    optimizer = torch.optim.Adam(everything.parameters())
    schedule = QATSchedule(freeze_batch_norm_after=5)
    qat = QATCallback(everything, optimizer, scheme=four_bits(), calibration=[batch()], schedule=schedule)
    before = {name: tensor.clone() for name, tensor in everything.state_dict().items()}
    with pytest.raises(InputError, match="must be frozen: give freeze_batch_norm_after=0"):
        qat.warm_start(quantized)
    assert all(torch.equal(before[name], tensor) for name, tensor in everything.state_dict().items())


def test_another_scheme_is_refused(everything: nn.Module) -> None:
    quantized = after_training(everything, load_target("x86-vnni").scheme())
    optimizer = torch.optim.Adam(everything.parameters())
    qat = QATCallback(everything, optimizer, scheme=four_bits(), calibration=[batch()])
    with pytest.raises(InputError, match="in int8 per_channel, the training in int4 per_channel; give both the same"):
        qat.warm_start(quantized)
