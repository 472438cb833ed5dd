"""Every method and every kind of scale in the callback: trained for real, deployed as the same codes."""

from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback, QATSchedule
from bitwright.qat.methods import Method
from bitwright.quant.errors import InputError
from bitwright.quant.formats import get_format
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, QuantScheme, ScaleKind

from .conftest import Everything, batch, settled


def in_blocks(name: str, kind: ScaleKind, size: int = 4, *, dynamic: bool = False) -> QParamsSpec:
    return QParamsSpec(
        format=get_format(name),
        symmetric=True,
        granularity=Granularity.PER_BLOCK,
        block_size=size,
        scale_kind=kind,
        dynamic=dynamic,
    )


def per_tensor(name: str, *, dynamic: bool = False) -> QParamsSpec:
    return QParamsSpec(format=get_format(name), symmetric=not name.startswith("uint"), dynamic=dynamic)


# Weights, then activations.
FORMATS = {
    "int4 groups": (in_blocks("int4", ScaleKind.FLOAT32), per_tensor("uint8")),
    "int4 groups of powers of two": (in_blocks("int4", ScaleKind.POWER_OF_TWO), per_tensor("uint8")),
    "fp8": (per_tensor("float8_e4m3fn"), per_tensor("float8_e5m2")),
    "mxfp8": (in_blocks("float8_e4m3fn", ScaleKind.E8M0), in_blocks("float8_e4m3fn", ScaleKind.E8M0, dynamic=True)),
    "nvfp4": (
        in_blocks("float4_e2m1fn", ScaleKind.FLOAT8_E4M3),
        in_blocks("float4_e2m1fn", ScaleKind.FLOAT8_E4M3, dynamic=True),
    ),
    "dynamic int8": (per_tensor("int8"), per_tensor("uint8", dynamic=True)),
}


def scheme_of(weights: QParamsSpec, activations: QParamsSpec) -> QuantScheme:
    float_biases = isinstance(weights.block_size, int) or activations.dynamic or weights.format.name.startswith("float")
    return replace(
        load_target("x86-vnni").scheme(),
        weights=weights,
        activations=activations,
        operator_weights=MappingProxyType({}),
        bias=BiasKind.FLOAT32 if float_biases else BiasKind.INT32,
    )


def train(model: nn.Module, qat: QATCallback, steps: int) -> list[float]:
    losses = []
    model.train()
    for seed in range(steps):
        x, labels = batch(seed=seed)
        loss = F.cross_entropy(model(x), labels)
        assert qat.optimizer is not None
        qat.optimizer.zero_grad()
        loss.backward()
        qat.optimizer.step()
        qat.on_step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return settled(Everything())


def start(model: nn.Module, **options: object) -> QATCallback:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return QATCallback(model, optimizer, calibration=[batch()], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("live", [True, False], ids=["live", "frozen"])
@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_trains_and_is_deployed_bit_for_bit(model: nn.Module, name: str, live: bool) -> None:
    schedule = QATSchedule(freeze_batch_norm_after=None if live else 0)
    qat = start(model, scheme=scheme_of(*FORMATS[name]), schedule=schedule)
    losses = train(model, qat, 16)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    result = qat.finish()  # proves the codes
    assert result.plan.weights
    x = batch(1, seed=99)[0]
    assert torch.isfinite(result.run(x)).all()


@pytest.mark.parametrize("method", list(Method))
def test_every_method_trains_and_is_deployed_bit_for_bit(model: nn.Module, method: Method) -> None:
    scheme = replace(load_target("x86-vnni").scheme(), activations=per_tensor("uint4"))
    scheme = replace(scheme, activations=replace(scheme.activations, symmetric=False, observer="mse"))
    qat = start(model, scheme=scheme, method=method, weights="int4")
    before = {name: q.qparams().scale for name, q in qat.replay.parts.quantizers.named()}
    losses = train(model, qat, 16)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    moved = [not torch.equal(before[name], q.qparams().scale) for name, q in qat.replay.parts.quantizers.named()]
    assert any(moved) if method is Method.TQT else sum(moved) > 0.8 * len(moved)
    result = qat.finish()
    if method is Method.TQT:
        scales = torch.cat([each.scale.flatten() for each in result.qparams.values()])
        assert torch.equal(torch.log2(scales), torch.log2(scales).round())
    if method is Method.LSQ_PLUS:
        points = {float(each.zero_point) for ref, each in result.qparams.items() if ref in result.plan.activations}
        assert all(point.is_integer() for point in points) and len(points) > 2


def test_a_method_that_is_none_is_refused(model: nn.Module) -> None:
    with pytest.raises(InputError, match=r"method = 'dorefa'; there are: ranges, lsq, lsq_linear, lsq\+, pact, tqt"):
        start(model, target="x86-vnni", method="dorefa")
    assert not hasattr(model, "qat_quantizers")
