import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback, QATSchedule, differences, with_formats
from bitwright.qat.prepare import _MOVES
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity, Override, QuantScheme, ScaleKind

from .conftest import Everything, batch, settled

TARGETS = ["x86-vnni", "ethos-u85-1024", "tensorrt-orin", "h200"]


def attached(model: nn.Module, scheme: QuantScheme, **options: object) -> tuple[QATCallback, torch.optim.Optimizer]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return QATCallback(model, optimizer, scheme=scheme, calibration=[batch()], **options), optimizer


def train(qat: QATCallback, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        x, labels = batch(seed=step % 4)
        qat.model.train()
        loss = F.cross_entropy(qat.model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        qat.on_step()
        losses.append(loss.item())
    return losses


def compared(qat: QATCallback, quantized: QuantizedModel) -> set[object]:
    """The tensors at which the eager network was looked at."""
    seen = set()
    qat.replay.parts.tap.look = lambda ref, _: seen.add(ref)
    qat.model.eval()
    with torch.no_grad():
        qat.model(batch(1)[0])
    qat.replay.parts.tap.look = None
    return seen


def check_trained_is_simulated(network: nn.Module, target: str, freeze: int) -> None:
    scheme = load_target(target).scheme()
    if target != "h200":
        scheme = with_formats(scheme, weights="int4")
    qat, optimizer = attached(network, scheme, schedule=QATSchedule(freeze_batch_norm_after=freeze))
    train(qat, optimizer, 8)
    quantized = qat.quantized()
    for seed in range(20):
        assert differences(qat.replay, quantized, (batch(1, seed=100 + seed)[0],)) == []
    network.eval()
    with torch.no_grad():
        x = batch(1, seed=77)[0]
        assert torch.equal(network(x), quantized.run(x))
    graph = quantized.captured.graph
    moved = {ref for node in graph.nodes if node.op in _MOVES for ref in node.outputs}
    assert compared(qat, quantized) >= set(qat.quant_plan.activations) - moved


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("freeze", [0, 6], ids=["frozen", "live"])
def test_what_was_trained_is_what_is_simulated(everything: nn.Module, target: str, freeze: int) -> None:
    check_trained_is_simulated(everything, target, freeze)


def test_what_was_trained_is_what_is_simulated_in_every_network(network: nn.Module) -> None:
    check_trained_is_simulated(network, "ethos-u85-1024", 4)


@pytest.mark.parametrize("target", ["x86-vnni", "h200"])
def test_before_the_first_step_it_is_ptq(network: nn.Module, target: str) -> None:
    scheme = load_target(target).scheme()
    x = batch()[0]
    ptq = quantize(capture(network, (x[:1],)), scheme, [x], bias_correction=False)
    qat, _ = attached(network, scheme)
    started = qat.quantized()
    assert started.plan == ptq.plan
    for ref, expected in ptq.qparams.items():
        torch.testing.assert_close(started.qparams[ref].scale, expected.scale, rtol=1e-6, atol=0)
        assert torch.equal(started.qparams[ref].zero_point, expected.zero_point)
    one = batch(1, seed=9)[0]
    noise = (started.run(one) - ptq.run(one)).norm() / ptq.run(one).norm()
    assert noise < 0.02  # weights folded in float32 here and in float64 there: some codes at ties move by one


def test_the_users_model_comes_back_as_it_was_made(network: nn.Module, scheme: QuantScheme) -> None:
    before = copy.deepcopy(network)
    parameters = [id(parameter) for parameter in network.parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    qat, optimizer = attached(network, scheme)
    added = set(network.state_dict()) - set(before.state_dict())
    assert added and all(key.startswith("qat_quantizers.") for key in added)
    train(qat, optimizer, 2)
    qat.finish()
    assert list(network.state_dict()) == list(before.state_dict())
    assert [type(module) for module in network.modules()] == [type(module) for module in before.modules()]
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()] == hooks
    assert [id(parameter) for parameter in network.parameters()] == parameters
    assert len(optimizer.param_groups) == 1
    x = batch(1)[0]
    network.load_state_dict(before.state_dict())
    assert torch.equal(network.eval()(x), before.eval()(x))


def test_batch_norms_learn_until_they_freeze(everything: nn.Module, scheme: QuantScheme) -> None:
    norm = everything.get_submodule("blocks.0.bn1")
    qat, optimizer = attached(everything, scheme, schedule=QATSchedule(freeze_batch_norm_after=3))
    means = []
    for _ in range(5):
        train(qat, optimizer, 1)
        means.append(norm.running_mean.clone())
    assert not torch.equal(means[0], means[1]) and not torch.equal(means[1], means[2])
    assert torch.equal(means[2], means[3]) and torch.equal(means[3], means[4])
    assert everything.training and not norm.training


def test_a_live_batch_norm_normalizes_the_layer_with_the_folded_weights_codes(scheme: QuantScheme) -> None:
    """conv with fq(w * k) / k, then the batch norm: against the formula by hand."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
    net = settled(nn.Sequential(conv, norm, nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten()))
    qat, _ = attached(net, with_formats(scheme, weights="int4"), schedule=QATSchedule(freeze_batch_norm_after=None))
    x = batch(8)[0]
    quantized = qat.quantized()
    (ref,) = (ref for ref in quantized.plan.weights if ref.module_path == "0.weight")
    folded = quantized.captured.values[quantized.captured.value_refs[ref]]
    k = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    source = qat.replay.parts.by_ref[quantized.captured.graph.inputs[0]]
    raw = F.conv2d(source(x), (folded / k.reshape(-1, 1, 1, 1)).detach())
    expected = F.batch_norm(raw, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    seen = []
    handle = norm.register_forward_hook(lambda m, args, result: seen.append((args[0], result)))
    net.train()
    net(x)
    handle.remove()
    torch.testing.assert_close(seen[0][0], raw, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[0][1], expected, rtol=1e-4, atol=1e-4)


def test_layers_that_are_kept_in_float_stay_exact(everything: nn.Module, scheme: QuantScheme) -> None:
    scheme = scheme.with_overrides(
        Override(module="blocks.0", keep_float=True), Override(module="head", keep_float=True)
    )
    qat, optimizer = attached(everything, scheme)
    train(qat, optimizer, 3)
    quantized = qat.quantized()
    assert not any(ref.module_path.startswith("blocks.0.conv") for ref in quantized.plan.weights)
    assert differences(qat.replay, quantized, (batch(1, seed=5)[0],)) == []


@pytest.mark.parametrize("scale_kind", ["power_of_two", "per_tensor"])
def test_scales_that_belong_to_the_folded_weight(everything: nn.Module, scheme: QuantScheme, scale_kind: str) -> None:
    changed = (
        {"scale_kind": ScaleKind.POWER_OF_TWO}
        if scale_kind == "power_of_two"
        else {"granularity": Granularity.PER_TENSOR}
    )
    scheme = replace(scheme, weights=replace(scheme.weights, **changed))
    qat, optimizer = attached(everything, scheme, schedule=QATSchedule(freeze_batch_norm_after=4))
    train(qat, optimizer, 8)
    quantized = qat.quantized()
    assert differences(qat.replay, quantized, (batch(1, seed=5)[0],)) == []
    scales = [quantized.qparams[ref].scale for ref in quantized.plan.weights]
    if scale_kind == "power_of_two":
        assert all(torch.log2(scale).frac().eq(0).all() for scale in scales)
    else:
        assert all(scale.dim() == 0 for scale in scales)


def test_a_dead_channel_does_not_break_training(everything: nn.Module, scheme: QuantScheme) -> None:
    everything.get_submodule("blocks.0.bn1").weight.data[:2] = 0.0
    qat, optimizer = attached(everything, scheme, schedule=QATSchedule(freeze_batch_norm_after=3))
    losses = train(qat, optimizer, 6)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert differences(qat.replay, qat.quantized(), (batch(1, seed=5)[0],)) == []


def test_tensors_that_share_qparams_share_one_scale(everything: nn.Module) -> None:
    qat, optimizer = attached(everything, load_target("ethos-u85-1024").scheme())
    train(qat, optimizer, 5)
    quantized = qat.quantized()
    assert any(len(group) > 2 for group in quantized.plan.groups)
    for group in quantized.plan.groups:
        scales = {float(quantized.qparams[ref].scale) for ref in group}
        assert len(scales) == 1


def test_a_module_that_is_called_twice_has_a_scale_for_each_call(scheme: QuantScheme) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x) * 4.0).mean((2, 3))

    net = Twice()
    qat, _ = attached(net, scheme)
    sites = [site for _, site in qat.replay.parts.sites if site.ref.module_path == "conv"]
    assert [site.ref.call_index for site in sites] == [0, 1]
    assert sites[0].quantizer is not sites[1].quantizer
    first, second = (float(site.quantizer.qparams().scale) for site in sites)
    assert first != second
    assert differences(qat.replay, qat.quantized(), (batch(1)[0],)) == []


def test_tied_weights_stay_tied(scheme: QuantScheme) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(12, 12), nn.Linear(12, 12)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(F.relu(self.one(x))).mean((1, 2))

    net = Tied()
    qat, optimizer = attached(net, scheme)
    train_input = batch()[0]
    net.train()
    net(train_input).square().mean().backward()
    optimizer.step()
    qat.on_step()
    assert net.two.weight is net.one.weight
    assert differences(qat.replay, qat.quantized(), (batch(1)[0],)) == []


def test_attention_is_quantized_inside_its_own_function(scheme: QuantScheme) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
            self.head = nn.Linear(12, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1, 2)
            y, _ = self.attention(x, x, x)
            return self.head((x + y).mean(1))

    net = Attention()
    qat, optimizer = attached(net, scheme)
    assert any(ref.module_path == "attention.in_proj_weight" for ref in qat.quant_plan.weights)
    losses = train(qat, optimizer, 6)
    assert losses[-1] < losses[0]
    net.eval()
    assert differences(qat.replay, qat.quantized(), (batch(1)[0],)) == []


def test_a_copy_of_the_model_is_a_network_of_its_own(everything: nn.Module, scheme: QuantScheme) -> None:
    """As averaged weights (EMA) and snapshots need it."""
    qat, optimizer = attached(everything, scheme)
    twin = copy.deepcopy(everything).eval()
    x = batch(4)[0]
    before = twin(x)
    assert torch.equal(before, everything.eval()(x))
    train(qat, optimizer, 3)
    assert torch.equal(twin(x), before)
    assert not torch.equal(everything.eval()(x), before)
    averaged = torch.optim.swa_utils.AveragedModel(everything)
    averaged.update_parameters(everything)
    assert torch.equal(averaged.eval()(x), everything(x))


def test_checkpointed_blocks_quantize_the_same_when_run_again(scheme: QuantScheme) -> None:
    class Checkpointed(Everything):
        again = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.stem(x))
            for block in self.blocks:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False) if self.again else block(x)
            return self.head(torch.cat([x, x], dim=1).mean((2, 3)))

    torch.manual_seed(0)
    net = settled(Checkpointed())
    net.again = False
    _qat, _ = attached(net, scheme)
    gradients = []
    for again in (False, True):
        net.again = again
        net.zero_grad()
        net.train()
        net(batch()[0]).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_an_error_in_forward_leaves_no_mode_behind(everything: nn.Module, scheme: QuantScheme) -> None:
    attached(everything, scheme)
    with pytest.raises(RuntimeError, match="expected input"):
        everything(torch.randn(1, 7, 12, 12))
    assert torch.overrides._get_current_function_mode() is None
    assert everything(batch(2)[0]).shape == (2, 5)


def test_an_interrupted_forward_is_forgotten_by_the_next(everything: nn.Module, scheme: QuantScheme) -> None:
    attached(everything, scheme)
    x = batch(2)[0]
    everything.eval()
    before = everything(x)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = everything.get_submodule("blocks.1.conv1").register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        everything(x)
    handle.remove()
    assert torch.equal(everything(x), before)
    assert torch.overrides._get_current_function_mode() is None


class Statement(nn.Module):
    """Goes on with the operand of an operator that writes in place."""

    def __init__(self, *, module: bool) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Linear(4, 5)
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if self.module:
            self.relu(y)
        else:
            y.relu_()
        return self.head(y.amax((2, 3)))


def test_a_call_whose_result_is_dropped_is_refused(scheme: QuantScheme) -> None:
    model = Statement(module=False)
    with pytest.raises(InputError, match=r"'relu' in the model \(.*test_replay.py:\d+\) writes into its operand"):
        attached(model, scheme)
    assert list(model.state_dict()) == list(Statement(module=False).state_dict())


def test_a_module_whose_result_is_dropped_is_found_at_the_end(scheme: QuantScheme) -> None:
    torch.manual_seed(0)
    qat, _ = attached(Statement(module=True), scheme)
    with pytest.raises(InputError, match=r"the trained module and the quantized network differ from .* on: .*x\.relu_"):
        qat.finish()
    assert qat.replay.is_attached


class GatedRows(nn.Module):
    """Reads rows by a gated recurrent unit (Cho et al. 2014) whose first state is a constant."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.first = first
        self.of_input, self.of_state, self.head = nn.Linear(12, 24), nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.full((len(x), 8), self.first)
        for row in range(4):
            own, theirs = self.of_input(x[:, 0, row]).chunk(3, 1), self.of_state(state).chunk(3, 1)
            update, reset = torch.sigmoid(own[0] + theirs[0]), torch.sigmoid(own[1] + theirs[1])
            new = torch.tanh(own[2] + reset * theirs[2])
            state = new + update * (state - new)
        return self.head(state)


def test_a_call_that_is_folded_away_leaves_the_others_their_own_bias_scale(scheme: QuantScheme) -> None:
    """The first of four calls of a layer computes from zeros: no node of the graph, yet a call of the module."""
    torch.manual_seed(0)
    qat, optimizer = attached(GatedRows(0.0), scheme, weights="int4")
    (layer,) = [each for each in qat.replay.parts.layers if each.module is qat.model.of_state]
    first, *others = layer.folded.inputs
    assert first is None and len(others) == 3
    train(qat, optimizer, 4)
    quantized = qat.quantized()
    assert differences(qat.replay, quantized, (batch(1, seed=100)[0],)) == []
    layer.folded.inputs[:] = [*others, None]  # each a neighbour's
    with pytest.raises(InputError, match="the trained module and the quantized network differ"):
        qat.quantized()
