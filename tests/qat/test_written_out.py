"""Attention and recurrent layers, which the plan has in parts and the user's module calls as one function."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.hw_constraints.target import load_target
from bitwright.qat import QATCallback, differences
from bitwright.qat.format_search import FormatSearch, SearchSettings
from bitwright.qat.prepare import _MOVES
from bitwright.qat.written_out import WrittenOut
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.formats import get_format
from bitwright.quant.graph import Graph
from bitwright.quant.mixed_precision.formats import LayerFormat
from bitwright.quant.plan import QuantPlan
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import BiasKind, Override

aten = torch.ops.aten
SCHEME = load_target("x86-vnni").scheme()
STEPS = 3


class Attention(nn.Module):
    """A block as in timm: queries, keys and values by one layer, then the function."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj, self.head = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
        return self.head((x + self.proj(y.transpose(1, 2).reshape(b, n, c))).mean(1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x).mean(1))


class Asked(nn.Module):
    """Attention whose weights are asked for, which torch computes with products."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, weights = self.attention(x, x, x)
        return self.head((x + y * weights.amax()).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(8, 4, batch_first=True, **options)
        self.head = nn.Linear(8 if options.get("bidirectional") else 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Cells(nn.Module):
    """Python's own loop over two cells, of which one begins with a learned state."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.LSTMCell(8, 4), nn.GRUCell(4, 4), nn.Linear(4, 5)
        self.begin = nn.Parameter(torch.randn(1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, h = None, self.begin.expand(len(x), -1)
        for t in range(x.shape[1]):
            states = self.first(x[:, t], states)
            h = self.second(states[0], h)
        return self.head(h)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "attention": Attention,
    "lstm": lambda: Recurrent(nn.LSTM),
    "encoder": Encoder,
    "attention weights": Asked,
    "two-layer lstm": lambda: Recurrent(nn.LSTM, num_layers=2, dropout=0.2),
    "bidirectional gru": lambda: Recurrent(nn.GRU, bidirectional=True),
    "cells": Cells,
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(NETWORKS)[2:]]


def batch(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, STEPS, 8, generator=torch.Generator().manual_seed(seed))
    return x, x.sum(1).argmax(1) % 5


def attached(name: str) -> tuple[QATCallback, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    return QATCallback(model, optimizer, scheme=SCHEME, calibration=[batch(32)]), optimizer


def train(qat: QATCallback, optimizer: torch.optim.Optimizer, seeds: range) -> list[float]:
    losses = []
    for seed in seeds:
        x, labels = batch(64, seed % 4)
        loss = F.cross_entropy(qat.model.train()(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        qat.on_step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ["attention", "lstm", *SLOW])
def test_it_has_the_plan_of_ptq_and_trains_in_its_codes(name: str) -> None:
    torch.manual_seed(0)
    x, one = batch(32)[0], batch(1, 9)[0]
    model = NETWORKS[name]().eval()
    ptq = quantize(capture(copy.deepcopy(model), (x[:1],)), SCHEME, [x], bias_correction=False)
    qat, optimizer = attached(name)
    keys = [key for key in qat.model.state_dict() if not key.startswith("qat_quantizers.")]
    assert keys == list(model.state_dict())
    started = qat.quantized()
    assert started.plan == ptq.plan and len(ptq.plan.activations) > 11
    with torch.no_grad():
        assert torch.equal(qat.model.eval()(one), ptq.run(one))
    losses = train(qat, optimizer, range(16))
    assert sum(losses[-4:]) < 0.97 * sum(losses[:4])
    trained = qat.quantized()
    for seed in range(20, 24):
        assert differences(qat.replay, trained, batch(1, seed)[:1]) == []
    watched = set()
    qat.replay.parts.tap.look = lambda ref, _: watched.add(ref)
    qat.model.eval()(one)
    qat.replay.parts.tap.look = None
    made_by = {ref: node.op for node in trained.captured.graph.nodes for ref in node.outputs}
    assert {ref for ref in ptq.plan.activations if made_by.get(ref) not in _MOVES} <= watched
    deployed = qat.finish()
    assert list(qat.model.state_dict()) == list(model.state_dict())
    assert [type(each) for each in qat.model.modules()] == [type(each) for each in model.modules()]
    assert not torch.equal(deployed.run(one), ptq.run(one))


@pytest.mark.slow
def test_training_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    qat, optimizer = attached("lstm")
    train(qat, optimizer, range(2))
    qat.save(tmp_path / "checkpoint.pt")
    expected = train(qat, optimizer, range(2, 4))
    qat, optimizer = attached("lstm")
    qat.load(tmp_path / "checkpoint.pt")
    assert train(qat, optimizer, range(2, 4)) == expected


def test_a_sequence_of_another_length_is_refused() -> None:
    qat, _ = attached("lstm")
    with pytest.raises(
        InputError,
        match=r"^'lstm' in 'rnn' \(.*test_written_out\.py:\d+\) gets a sequence of 5 steps; the model was prepared "
        r"with 3, each of which has scales of its own: give sequences of that length, padded if need be, or keep the "
        r"layer in float by an override of the operator 'lstm'$",
    ):
        qat.model(torch.randn(2, 5, 8))
    scheme = SCHEME.with_overrides(Override(operator="lstm", keep_float=True))
    qat = QATCallback(NETWORKS["lstm"](), None, scheme=scheme, calibration=[batch(32)])
    assert qat.model(torch.randn(2, 5, 8)).shape == (2, 5)


def test_a_call_of_another_kind_is_refused() -> None:
    call = WrittenOut(
        where="it", op="scaled_dot_product_attention", target=aten.scaled_dot_product_attention.default,
        steps=None, parts={},
    )  # fmt: skip
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(
        InputError,
        match=r"^it is called with a mask or keys of another kind, which it was not when the model was prepared; call "
        r"it as in eval mode, or keep it in float by an override of the operator 'scaled_dot_product_attention'$",
    ):
        call((q, q, q), {"is_causal": True})
    lstm = WrittenOut(where="it", op="lstm", target=aten.lstm.input, steps=3, parts={})
    network = nn.LSTM(8, 4)
    packed = nn.utils.rnn.pack_sequence([torch.randn(3, 8), torch.randn(2, 8)])
    states = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    given = (packed.data, packed.batch_sizes, states, network._flat_weights, True, 1, 0.0, True, False)
    with pytest.raises(InputError, match=r"^it is called with packed sequences, which it was not when"):
        lstm(given, {})


# --- the same function and gradient as torch's, where nothing is rounded ---


def results_and_gradients(function: Callable[..., Any], given: tuple[Any, ...], **options: Any) -> list[torch.Tensor]:
    leaves = [each for each in torch.utils._pytree.tree_leaves(given) if isinstance(each, torch.Tensor)]
    results = torch.utils._pytree.tree_leaves(function(given, options))
    total = sum((each * torch.linspace(-1, 2, each.numel()).view_as(each).to(each)).sum() for each in results)
    return [*results, *torch.autograd.grad(total, leaves)]


def check_equal(op: str, target: Any, reference: Any, given: tuple[Any, ...], **options: Any) -> None:
    call = WrittenOut(where="it", op=op, target=target, steps=STEPS, parts={})
    ours = results_and_gradients(call, given, **options)
    theirs = results_and_gradients(lambda args, named: reference(*args, **named), given, **options)
    assert len(ours) == len(theirs) > 3
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)


def doubles(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("options", [{}, {"scale": 0.3}])
def test_attention_is_torchs(options: dict[str, Any]) -> None:
    shape, target = (2, 3, 5, 4), aten.scaled_dot_product_attention.default
    reference = F.scaled_dot_product_attention
    check_equal("scaled_dot_product_attention", target, reference, tuple(doubles(shape, shape, shape)), **options)
    given = tuple(doubles(shape, shape, shape, (5, 5)))
    check_equal("scaled_dot_product_attention", target, reference, given, **options)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_layers_are_torchs(kind: str, bidirectional: bool, dropout: float) -> None:
    """A dropout of 1 leaves nothing to chance: the second layer sees zeros."""
    network = getattr(nn, kind.upper())(8, 4, 2, bidirectional=bidirectional, dtype=torch.float64)
    x, h, c = doubles((STEPS, 2, 8), (4 if bidirectional else 2, 2, 4), (4 if bidirectional else 2, 2, 4))
    given = (x, (h, c) if kind == "lstm" else h, network._flat_weights, True, 2, dropout, True, bidirectional, False)
    check_equal(kind, getattr(aten, kind).input, getattr(torch, kind), given)


@pytest.mark.parametrize("kind", ["lstm_cell", "gru_cell"])
def test_cells_are_torchs(kind: str) -> None:
    size = 16 if kind == "lstm_cell" else 12
    x, h, c, *weights = doubles((2, 8), (2, 4), (2, 4), (size, 8), (size, 4), (size,), (size,))
    check_equal(
        kind, getattr(aten, kind).default, getattr(torch, kind), (x, (h, c) if kind == "lstm_cell" else h, *weights)
    )


def test_attention_drops_weights_behind_the_softmax() -> None:
    q, k, v = doubles((2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4))
    call = WrittenOut(
        where="it", op="scaled_dot_product_attention", target=aten.scaled_dot_product_attention.default,
        steps=None, parts={},
    )  # fmt: skip
    torch.manual_seed(7)
    ours = call((q, k, v), {"dropout_p": 0.4})
    torch.manual_seed(7)
    theirs = F.dropout(torch.softmax(q @ k.transpose(-1, -2) / 2, -1), 0.4) @ v
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def size(graph: Graph, plan: QuantPlan) -> float:
    return float(sum(graph.tensors[ref].elements * spec.format.bits for ref, spec in plan.weights.items()))


@pytest.mark.slow
def test_formats_of_its_weights_and_results_are_learned() -> None:
    """One unit has the layer's weights and all that it hands on; driven to one side it computes what PTQ would."""
    narrow = LayerFormat(
        name="int4",
        weights=replace(SCHEME.weights, format=get_format("int4"), observer="mse"),
        activations=replace(SCHEME.activations, format=get_format("uint4")),
    )
    wide = LayerFormat(name="int8", weights=replace(SCHEME.weights, observer="mse"))
    base = replace(SCHEME, bias=BiasKind.FLOAT32)  # a search rounds no biases
    torch.manual_seed(0)
    model, x = NETWORKS["lstm"]().eval(), batch(32)[0]
    captured, before = capture(copy.deepcopy(model), (x[:1],)), copy.deepcopy(model.state_dict())
    settings = SearchSettings(steps=10)
    search = FormatSearch(model, base, (wide, narrow), [(x,)], cost=size, budget=1e9, search=settings)
    model(x).square().sum().backward()
    assert bool(search.deciding["rnn"].logits.grad.all())
    with torch.no_grad():
        for each in search.deciding.values():
            each.logits.copy_(torch.tensor([-1e4, 1e4]))
        mixed = model.eval()(x[:1])
    assert {search.assignment(search.chosen())[name] for name in ("rnn", "head")} == {"int4"}
    outcome = {}
    for each in (wide, narrow):
        scheme = search.problem.mixed_scheme(search.problem.uniform(each.name))
        outcome[each.name] = quantize(captured, scheme, [x], bias_correction=False).run(x[:1])
    apart = (outcome["int8"] - outcome["int4"]).abs().max()
    assert (mixed - outcome["int4"]).abs().max() < 0.02 * apart
    search.finish()
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
