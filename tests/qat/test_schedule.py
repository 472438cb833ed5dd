import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.qat import Freezing, QATCallback, QATSchedule, Ramp, Stage
from bitwright.qat.layers import dithered
from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.formats import get_format

from .conftest import batch


def attach(model: nn.Module, schedule: QATSchedule, **options: object) -> QATCallback:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    calibration = [batch()]
    return QATCallback(model, optimizer, target="x86-vnni", calibration=calibration, schedule=schedule, **options)


def train(qat: QATCallback, steps: int, seed: int = 0) -> None:
    for step in range(steps):
        x, labels = batch(seed=seed + step)
        qat.model.train()
        assert qat.optimizer is not None
        qat.optimizer.zero_grad()
        F.cross_entropy(qat.model(x), labels).backward()
        qat.optimizer.step()
        qat.on_step()


def formats(qat: QATCallback) -> tuple[set[str], set[str]]:
    by_ref, plan = qat.replay.parts.by_ref, qat.quant_plan
    names = [{by_ref[ref].spec.format.name for ref in refs} for refs in (plan.weights, plan.activations)]
    return names[0], names[1]


def test_a_ramp_is_half_a_cosine() -> None:
    ramp = Ramp(first=0.0, last=2.0, begin=10, end=30)
    assert [ramp.at(step) for step in (0, 10, 20, 30, 99)] == pytest.approx([0, 0, 1, 2, 2])
    assert ramp.at(15) == pytest.approx(2 - 2 * (1 + math.cos(math.pi / 4)) / 2)


def test_bits_go_down_and_scales_start_anew_with_the_least_error(everything: nn.Module) -> None:
    stages = (Stage(until=2, weights="int8", activations="uint8"), Stage(until=4, weights="int6"))
    qat = attach(everything, QATSchedule(stages=stages), weights="int4", activations="uint4")
    assert formats(qat) == ({"int8"}, {"uint8"})
    train(qat, 2)
    assert formats(qat) == ({"int6"}, {"uint4"})
    train(qat, 2)
    assert formats(qat) == ({"int4"}, {"uint4"})
    layer = next(each for each in qat.replay.parts.layers if each.folded.norm is None)
    assert layer.folded.quantizer is not None
    weight, qparams = layer.module.weight.detach(), layer.folded.quantizer.qparams()
    chosen = (weight - fake_quantize(weight, qparams)).square().sum()
    for factor in (0.9, 1.1):  # a wider or a narrower range is worse
        other = weight - fake_quantize(
            weight, type(qparams)(qparams.spec, qparams.scale * factor, qparams.zero_point, 0)
        )
        assert other.square().sum() > chosen
    train(qat, 1)
    deployed = qat.finish()
    assert {spec.format.name for spec in deployed.plan.weights.values()} == {"int4"}


def test_a_network_that_is_deployed_early_is_in_the_formats_of_then(everything: nn.Module) -> None:
    qat = attach(everything, QATSchedule(stages=(Stage(until=9, weights="int8"),)), weights="int4")
    train(qat, 1)
    early = qat.quantized()
    assert {spec.format.name for spec in early.plan.weights.values()} == {"int8"}
    assert {qparams.spec.format for ref, qparams in early.qparams.items() if ref in early.plan.weights} == {
        get_format("int8")
    }


SCHEDULE = QATSchedule(
    freeze_batch_norm_after=2,
    stages=(Stage(until=3, weights="int8"),),
    dampening=Ramp(first=0.0, last=1e-2, end=8),
    freezing=Freezing(threshold=Ramp(first=0.2, last=0.02, end=8), momentum=0.1),
    gradient_scaling=0.1,
)


@pytest.mark.parametrize("cut", [2, 5], ids=["before_the_bits_go_down", "behind"])
def test_a_schedule_goes_on_bit_by_bit(everything: nn.Module, cut: int) -> None:
    other = copy.deepcopy(everything)
    whole = attach(everything, SCHEDULE, weights="int4")
    train(whole, 8)
    first = attach(other, SCHEDULE, weights="int4")
    train(first, cut)
    assert first.optimizer is not None
    buffer = io.BytesIO()
    torch.save([first.model.state_dict(), first.optimizer.state_dict(), first.state_dict()], buffer)
    first.finish()
    buffer.seek(0)
    states = torch.load(buffer, weights_only=True)
    fresh = copy.deepcopy(first.model)
    second = attach(fresh, SCHEDULE, weights="int4")
    second.model.load_state_dict(states[0])
    assert second.optimizer is not None
    second.optimizer.load_state_dict(states[1])
    second.load_state_dict(states[2])
    train(second, 8 - cut, seed=cut)
    for (name, one), (_, two) in zip(whole.model.named_parameters(), second.model.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    for name, seen in whole.scheduled.oscillations.items():
        assert torch.equal(seen.frequency, second.scheduled.oscillations[name].frequency)


def test_frozen_weights_keep_their_codes(everything: nn.Module) -> None:
    freezing = Freezing(threshold=Ramp(first=1e-3, last=1e-3), momentum=0.1)
    qat = attach(everything, QATSchedule(freezing=freezing), weights="int4")
    train(qat, 12)
    before = {name: (seen.frozen.clone(), seen.codes.clone()) for name, seen in qat.scheduled.oscillations.items()}
    assert sum(int(frozen.sum()) for frozen, _ in before.values()) > 0
    train(qat, 4, seed=20)
    for weight in qat.scheduled.weights():
        frozen, codes = before[weight.name]
        now = (weight.parameter.detach() / weight.divisor).round()
        assert torch.equal(now[frozen], codes[frozen])


def test_dampening_gathers_weights_in_the_middle_of_their_codes(everything: nn.Module) -> None:
    def distance(strength: float) -> float:
        qat = attach(copy.deepcopy(everything), QATSchedule(dampening=Ramp(first=0.0, last=strength, end=20)))
        optimizer = torch.optim.SGD([weight.parameter for weight in qat.scheduled.weights()], lr=0.01)
        for step in range(30):
            x, labels = batch(seed=step)
            qat.model.train()
            optimizer.zero_grad()
            F.cross_entropy(qat.model(x), labels).backward()
            qat.before_step()
            optimizer.step()
            qat.on_step()
        off = [
            (w.parameter.detach() / w.divisor).sub_((w.parameter.detach() / w.divisor).round()).abs().mean()
            for w in qat.scheduled.weights()
        ]
        return float(torch.stack(off).mean())

    free = distance(0.0)
    assert free == pytest.approx(0.25, abs=0.03)  # even between -1/2 and 1/2
    assert distance(30.0) < 0.5 * free


def test_stochastic_rounding_is_right_on_average() -> None:
    torch.manual_seed(0)
    weight, divisor = torch.linspace(-2.0, 2.0, 41), torch.tensor(0.5)
    rounded = torch.stack([(dithered(weight, divisor) / divisor).round() * divisor for _ in range(4000)])
    share = (weight / divisor) % 1.0
    # The deviation of a mean of 4,000 draws between neighbours one step apart: five of them at most.
    allowed = 5 * divisor * (share * (1 - share) / 4000).sqrt() + 1e-6
    assert ((rounded.mean(0) - weight).abs() <= allowed).all()
    assert ((rounded - weight).abs() <= divisor + 1e-6).all() and rounded.std(0).max() > 0.2


def test_stochastic_rounding_is_for_training_until_its_step(everything: nn.Module) -> None:
    qat = attach(everything, QATSchedule(stochastic_rounding_until=2), weights="int4")
    x, _ = batch()
    qat.model.train()
    assert not torch.equal(qat.model(x), qat.model(x))
    qat.model.eval()
    assert torch.equal(qat.model(x), qat.model(x))
    train(qat, 2)
    qat.model.train()
    assert torch.equal(qat.model(x), qat.model(x))


def test_scales_freeze(everything: nn.Module) -> None:
    qat = attach(everything, QATSchedule(freeze_scales_after=2))

    def scales() -> list[torch.Tensor]:
        return [q.qparams().scale for _, q in qat.replay.parts.quantizers.named()]

    train(qat, 1)
    early = scales()
    train(qat, 1)
    middle = scales()
    train(qat, 2)
    assert any(not torch.equal(a, b) for a, b in zip(early, middle, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(middle, scales(), strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage(until=0, weights="int8"), r"stages.until = 0; allowed: 1 and more steps"),
        (lambda: Stage(until=3), "names the format of its weights, of its activations, or both"),
        (lambda: Stage(until=3, weights="int88"), "unknown number format 'int88'; there are: .*int8"),
        (lambda: Ramp(first=0, last=1, begin=5, end=5), "begin must lie before end"),
        (lambda: Freezing(threshold=Ramp(first=0, last=1), momentum=1.0), "momentum = 1.0; allowed: 0 < momentum < 1"),
        (lambda: QATSchedule(scale_lr=2.0), "scale_lr = 2.0; allowed: 0 <= scale_lr < 1"),
        (lambda: QATSchedule(gradient_scaling=-1.0), "gradient_scaling = -1.0; allowed: 0 to 1"),
        (lambda: QATSchedule(freeze_batch_norm_after=-1), "freeze_batch_norm_after = -1; allowed: 0 and more"),
        (
            lambda: QATSchedule(stages=(Stage(until=5, weights="int8"), Stage(until=5, weights="int6"))),
            r"stages end at steps \[5, 5\]; each must end behind the one before it",
        ),
    ],
)
def test_what_a_schedule_refuses(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
