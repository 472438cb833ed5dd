"""Each rewrite by itself, without any accelerator: eager PyTorch's results, the operator gone, and when it says no."""

import importlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.passes.fold_constants import fold_constants
from bitwright.quant.rewrite import Refused

EXACT = {"rtol": 1e-5, "atol": 1e-5}


class Net(nn.Module):
    """Layers by name, and a forward that can be read beside them."""

    def __init__(self, forward: Any, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.steps = forward

    def forward(self, *args: torch.Tensor) -> Any:
        return self.steps(self, *args)


@dataclass(frozen=True)
class Case:
    """A rewrite at a place.

    Attributes:
        rewrite: its name.
        at: the operator where it starts, and the how-many-th call of it.
        net: the network.
        args: of its forward.
        settings: of the rewrite.
        left: how many calls of an operator are there afterwards.
        refusal: a part of the reason when it must say no.
    """

    rewrite: str
    at: tuple[str, int]
    net: nn.Module
    args: tuple[torch.Tensor, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    refusal: str = ""


def x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def near_unit(size: int) -> torch.Tensor:
    return torch.eye(size).repeat(5, 1, 1) + 0.1 * x(5, size, size)


def turned(angle: float) -> torch.Tensor:
    """A rotation about the first axis with a translation."""
    turn = torch.tensor(angle)
    pose = torch.eye(4)
    pose[1, 1], pose[1, 2], pose[2, 1], pose[2, 2] = turn.cos(), -turn.sin(), turn.sin(), turn.cos()
    pose[:3, 3] = torch.tensor([0.3, -2.0, 1.5])
    return pose.repeat(3, 1, 1)


def written(net: Any, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    z = y.clone()
    z[mask] = torch.tanh(y[mask])
    return z * 2.0


def _all_of(n, y):
    """Every result of a recurrent layer."""
    states, last = n.a(y)
    return [states * 2.0, *(part + 1.0 for part in (last if isinstance(last, tuple) else (last,)))]


MASK = torch.arange(12).reshape(2, 6) % 3 == 0
MADE = [
    Case("drop_no_effect", ("relu", 1), Net(lambda n, y: F.relu(F.relu(y)) + 1.0), (x(2, 3),), left={"relu": 1}),
    Case("drop_no_effect", ("cat", 0), Net(lambda n, y: torch.cat([y * 2.0], 1) + 1.0), (x(2, 3),), left={"cat": 0}),
    Case("merge_transposes", ("permute", 1), Net(lambda n, y: torch.tanh(y.permute(2, 0, 1)).permute(1, 2, 0) + 1.0),
         (x(2, 3, 4),), left={"permute": 0}),
    Case("merge_transposes", ("permute", 1), Net(lambda n, y: y.permute(2, 0, 1).permute(2, 0, 1) + 1.0),
         (x(2, 3, 4),), left={"permute": 1}),
    Case("merge_transposes", ("transpose", 0), Net(lambda n, y: y.transpose(0, 1) + 1.0), (x(1, 5, 3),),
         left={"transpose": 0, "reshape": 1}),
    Case("linear_as_conv", ("permute", 1), Net(lambda n, y: n.b(F.gelu(n.a(y.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2),
         a=nn.Linear(5, 7), b=nn.Linear(7, 3, bias=False)), (x(2, 5, 4, 6),),
         left={"permute": 0, "linear": 0, "conv2d": 2}),
    Case("linear_as_conv", ("transpose", 1), Net(lambda n, y: n.b(F.relu(n.a(y.transpose(1, 2)))).transpose(1, 2),
         a=nn.Linear(6, 9), b=nn.Linear(9, 4)), (x(2, 6, 5),), left={"transpose": 0, "linear": 0, "conv2d": 2}),
    Case("fixed_pool", ("adaptive_avg_pool2d", 0), Net(lambda n, y: F.adaptive_avg_pool2d(y, (3, 5)) * 2.0),
         (x(2, 3, 11, 13),), left={"adaptive_avg_pool2d": 0, "matmul": 2}),
    Case("fixed_pool", ("adaptive_avg_pool2d", 0), Net(lambda n, y: F.adaptive_avg_pool2d(y, (3, 2)) * 2.0),
         (x(2, 3, 12, 8),), left={"adaptive_avg_pool2d": 0, "avg_pool2d": 1}),
    Case("mean_as_pool", ("mean", 0), Net(lambda n, y: y.mean((3, 2)) * 2.0), (x(2, 3, 5, 7),),
         left={"mean": 0, "adaptive_avg_pool2d": 1}),
    Case("mean_as_pool", ("mean", 0), Net(lambda n, y: y.mean((-2, -1), keepdim=True) * y), (x(2, 3, 5, 7),),
         left={"mean": 0, "adaptive_avg_pool2d": 1}),
    Case("split_pool", ("max_pool2d", 0), Net(lambda n, y: F.max_pool2d(y, 9, 1, 4) * 2.0), (x(1, 2, 17, 15),),
         {"largest": 4}, {"max_pool2d": 4}),
    Case("split_pool", ("max_pool2d", 0), Net(lambda n, y: F.max_pool2d(y, (6, 10)) * 2.0), (x(1, 2, 24, 20),),
         {"largest": 5}, {"max_pool2d": 2}),
    Case("split_pool", ("avg_pool2d", 0), Net(lambda n, y: F.avg_pool2d(y, 12) * 2.0), (x(1, 2, 24, 24),),
         {"largest": 4}, {"avg_pool2d": 2}),
    Case("split_pool", ("adaptive_avg_pool2d", 0), Net(lambda n, y: F.adaptive_avg_pool2d(y, 1) * y),
         (x(1, 2, 20, 28),),
         {"largest": 3, "left": 40}, {"avg_pool2d": 2, "adaptive_avg_pool2d": 1}),
    Case("split_pool", ("adaptive_avg_pool2d", 0), Net(lambda n, y: F.adaptive_avg_pool2d(y, 1) * y),
         (x(1, 2, 9, 27),),
         {"largest": 3}, {"avg_pool2d": 3, "adaptive_avg_pool2d": 0}),
    Case("space_to_depth_stem", ("conv2d", 0), Net(lambda n, y: n.a(y) * 2.0, a=nn.Conv2d(3, 5, 7, 2, 3)),
         (x(2, 3, 18, 22),), left={"pixel_unshuffle": 1}),
    Case("space_to_depth_stem", ("conv2d", 0), Net(lambda n, y: n.a(y) * 2.0, a=nn.Conv2d(3, 5, 4, 4)),
         (x(2, 3, 16, 24),), {"unshuffle": False}, {"pixel_unshuffle": 0, "permute": 1}),
    Case("split_deconv", ("conv_transpose2d", 0), Net(lambda n, y: n.a(y) * 2.0,
         a=nn.ConvTranspose2d(6, 9, 3, 2, 1, output_padding=1, groups=3)), (x(2, 6, 5, 4),),
         left={"conv_transpose2d": 3}),
    Case("masked_write", ("index_put", 0), Net(written), (x(2, 6, 4), MASK), left={"index_put": 0, "where": 1}),
    Case("closed_form_inverse", ("linalg_inv_ex", 0), Net(lambda n, p, y: y @ torch.linalg.inv_ex(p)[0]),
         (turned(0.7), x(3, 5, 4)), {"rigid": True}, {"linalg_inv_ex": 0}),
    *(Case("closed_form_inverse", ("inverse", 0), Net(lambda n, p, y: y @ torch.inverse(p)),
           (near_unit(size), x(5, 3, size)), {"rigid": False}, {"inverse": 0}) for size in (2, 3, 4)),
    Case("conv3d_as_conv2d", ("conv3d", 0), Net(lambda n, y: n.a(y) * 2.0,
         a=nn.Conv3d(3, 4, (3, 2, 3), (2, 1, 2), (1, 0, 1), (2, 1, 1))), (x(2, 3, 9, 7, 8),),
         left={"conv3d": 0, "conv2d": 1}),
    Case("conv3d_as_conv2d", ("conv3d", 0), Net(lambda n, y: n.a(y) * 2.0,
         a=nn.Conv3d(4, 4, (5, 1, 1), (2, 1, 1), (2, 0, 0), groups=4)), (x(1, 4, 9, 3, 5),),
         left={"conv3d": 0, "conv2d": 1}),
    Case("write_out_attention", ("scaled_dot_product_attention", 0), Net(lambda n, q, k, v:
         F.scaled_dot_product_attention(q, k, v) * 2.0), (x(2, 3, 5, 8), x(2, 3, 7, 8), x(2, 3, 7, 4)),
         left={"scaled_dot_product_attention": 0, "softmax": 1}),
    Case("write_out_attention", ("scaled_dot_product_attention", 0), Net(lambda n, q, m:
         F.scaled_dot_product_attention(q, q + 1, q - 1, m, scale=0.3) * 2.0), (x(2, 3, 5, 8), x(5, 5)),
         left={"scaled_dot_product_attention": 0, "softmax": 1}),
    Case("write_out_recurrence", ("lstm", 0), Net(lambda n, y: n.a(y)[0] * 2.0, a=nn.LSTM(3, 4, batch_first=True)),
         (x(2, 5, 3),), left={"lstm": 0, "linear": 5, "tanh": 10}),
    Case("write_out_recurrence", ("lstm", 0), Net(_all_of, a=nn.LSTM(3, 4, 2, bidirectional=True)), (x(4, 2, 3),),
         left={"lstm": 0, "tanh": 32}),
    Case("write_out_recurrence", ("gru", 0), Net(lambda n, y: n.a(y)[1] * 2.0, a=nn.GRU(3, 4, bias=False)),
         (x(5, 2, 3),), left={"gru": 0, "tanh": 5}),
    Case("write_out_recurrence", ("gru", 0), Net(_all_of, a=nn.GRU(3, 4, 2, batch_first=True, bidirectional=True)),
         (x(2, 4, 3),), left={"gru": 0, "tanh": 16}),
    Case("write_out_recurrence", ("lstm", 0), Net(lambda n, y, h: n.a(y, (h, h + 1.0))[0] * 2.0, a=nn.LSTM(3, 4)),
         (x(5, 2, 3), x(1, 2, 4)), left={"lstm": 0, "linear": 6}),
    Case("write_out_recurrence", ("gru_cell", 0), Net(lambda n, y, h: n.a(y, h) * 2.0, a=nn.GRUCell(3, 4)),
         (x(2, 3), x(2, 4)), left={"gru_cell": 0, "linear": 2}),
    Case("write_out_recurrence", ("lstm_cell", 0), Net(lambda n, y, h: [part * 2.0 for part in n.a(y, (h, h - 1.0))],
         a=nn.LSTMCell(3, 4, bias=False)), (x(2, 3), x(2, 4)), left={"lstm_cell": 0, "linear": 2}),
    Case("batch_loop", ("stack", 0), Net(lambda n, y: torch.stack([F.relu(n.a(y[:, i])) for i in range(3)], 1) * 2.0,
         a=nn.Conv2d(4, 5, 3)), (x(2, 3, 4, 7, 6),), left={"conv2d": 1, "stack": 0}),
    Case("direct_top_k", ("gather", 0), Net(lambda n, y: y.gather(1, y.topk(3, 1).indices) * 2.0), (x(4, 9),),
         left={"gather": 0}),
    Case("direct_top_k", ("sort", 0), Net(lambda n, y: y.sort(0, descending=False)[0][:2] * 2.0), (x(7, 3),),
         left={"sort": 0, "topk": 1}),
    Case("pad_channels", ("conv2d", 0), Net(lambda n, y: n.b(torch.sigmoid(n.a(y))), a=nn.Conv2d(3, 13, 3),
         b=nn.Conv2d(13, 5, 3)), (x(2, 3, 9, 9),), {"multiple": 8}),
    Case("pad_channels", ("linear", 0), Net(lambda n, y: n.b(F.gelu(n.a(y))), a=nn.Linear(6, 7),
         b=nn.Linear(7, 3)), (x(2, 6),), {"multiple": 4}),
    Case("fold_pad", ("pad", 0), Net(lambda n, y: n.a(F.pad(y, (2, 1, 0, 3))) * 2.0, a=nn.Conv2d(3, 4, (3, 2))),
         (x(2, 3, 8, 9),), left={"pad": 0}),
    Case("broadcast_repeat", ("repeat", 0), Net(lambda n, y, p: y + p.repeat(1, 1, 4, 5)),
         (x(2, 3, 4, 5), x(2, 3, 1, 1)), left={"repeat": 0}),
    Case("merge_duplicates", ("tanh", 1), Net(lambda n, y: (torch.tanh(y) + 1.0) * (torch.tanh(y) + 2.0)), (x(3, 4),),
         left={"tanh": 1}),
    *(Case("spell_activation", (op, 0), Net(lambda n, y, f=f: f(y) * 2.0), (x(40) * 4,), {"form": form}, {op: 0})
      for op, form, f in (("hardswish", "relu6", F.hardswish), ("hardsigmoid", "relu6", F.hardsigmoid),
                          ("silu", "sigmoid", F.silu), ("mish", "tanh", F.mish))),
]  # fmt: skip
REFUSED = [
    Case("drop_no_effect", ("tanh", 0), Net(lambda n, y: y.tanh() + 1.0), (x(3),), refusal="changes its operand"),
    Case("merge_transposes", ("permute", 0), Net(lambda n, y: y.permute(1, 0) + 1.0), (x(2, 3),),
         refusal="no transpose before it"),
    Case("linear_as_conv", ("transpose", 1), Net(lambda n, y: n.a(y.transpose(1, 2)).transpose(0, 1),
         a=nn.Linear(6, 9)),
         (x(2, 6, 5),), refusal="does not bring channels to the front"),
    Case("fixed_pool", ("avg_pool2d", 0), Net(lambda n, y: F.avg_pool2d(y, 2)), (x(1, 2, 4, 4),),
         refusal="no adaptive"),
    Case("mean_as_pool", ("mean", 0), Net(lambda n, y: y.mean((1, 2))), (x(2, 3, 5, 7),), refusal="height and width"),
    Case("split_pool", ("max_pool2d", 0), Net(lambda n, y: F.max_pool2d(y, 9, 2, 4)), (x(1, 2, 17, 15),),
         {"largest": 5}, refusal="overlap"),
    Case("split_pool", ("adaptive_avg_pool2d", 0), Net(lambda n, y: F.adaptive_avg_pool2d(y, 1)), (x(1, 2, 13, 14),),
         {"largest": 3, "left": 64}, refusal="13 x 7 is no product"),
    Case("space_to_depth_stem", ("conv2d", 0), Net(lambda n, y: n.a(y), a=nn.Conv2d(3, 5, 3, 2)), (x(1, 3, 9, 8),),
         refusal="no multiple of the stride"),
    Case("split_deconv", ("conv_transpose2d", 0), Net(lambda n, y: n.a(y), a=nn.ConvTranspose2d(4, 4, 2)),
         (x(1, 4, 3, 3),), refusal="1 groups"),
    Case("closed_form_inverse", ("inverse", 0), Net(lambda n, p: torch.inverse(p)), (near_unit(5),), {"rigid": False},
         refusal="too many digits"),
    Case("conv3d_as_conv2d", ("conv3d", 0), Net(lambda n, y: n.a(y), a=nn.Conv3d(4, 4, 3, groups=2)),
         (x(1, 4, 5, 5, 5),), refusal="mix the groups"),
    Case("write_out_attention", ("scaled_dot_product_attention", 0), Net(lambda n, q, m:
         F.scaled_dot_product_attention(q, q, q, m)), (x(1, 1, 6, 4), MASK[:1].expand(6, 6)), refusal="boolean"),
    Case("write_out_recurrence", ("lstm", 0), Net(lambda n, y: n.a(y)[0], a=nn.LSTM(3, 4)), (x(200, 1, 3),),
         refusal="it takes 200 steps; up to 128 are written out"),
    Case("write_out_recurrence", ("lstm", 0), Net(lambda n, y: n.a(y)[0], a=nn.LSTM(3, 4, proj_size=2)), (x(5, 1, 3),),
         refusal="projects its states"),
    Case("batch_loop", ("stack", 0), Net(lambda n, y: torch.stack([y[:, 0] * 2.0, y[:, 1] * 3.0], 1)), (x(2, 2, 4),),
         refusal="unlike the first"),
    Case("direct_top_k", ("gather", 0), Net(lambda n, y: (y + 1.0).gather(1, y.topk(3, 1).indices)), (x(4, 9),),
         refusal="another tensor"),
    Case("pad_channels", ("conv2d", 0), Net(lambda n, y: n.b(torch.rsqrt(n.a(y).exp())), a=nn.Conv2d(3, 13, 3),
         b=nn.Conv2d(13, 5, 3)), (x(2, 3, 9, 9),), {"multiple": 8}, refusal="rsqrt"),
    Case("fold_pad", ("pad", 0), Net(lambda n, y: n.a(F.pad(y, (1, 1, 1, 1), value=1.0)), a=nn.Conv2d(3, 4, 3)),
         (x(1, 3, 5, 5),), refusal="does not pad with zeros"),
    Case("broadcast_repeat", ("repeat", 0), Net(lambda n, y: y.repeat(1, 4) @ n.a.weight, a=nn.Linear(4, 4)),
         (x(4, 1),), refusal="reads the copies"),
    Case("merge_duplicates", ("tanh", 1), Net(lambda n, y: torch.tanh(y) + torch.tanh(y + 1.0)), (x(3),),
         refusal="no tanh before it"),
    Case("spell_activation", ("relu", 0), Net(lambda n, y: F.relu(y)), (x(3),), {"form": "tanh"},
         refusal="has no form"),
]  # fmt: skip


def run(case: Case) -> tuple[CapturedModel, CapturedModel | Refused]:
    captured = fold_constants(capture(case.net.eval(), case.args))
    rewrite = getattr(importlib.import_module(f"bitwright.quant.passes.{case.rewrite}"), case.rewrite)
    op, number = case.at
    at = [node.name for node in captured.graph.nodes if node.op == op][number]
    return captured, rewrite(captured, at, **case.settings)


def name(case: Case) -> str:
    return f"{case.rewrite}-{case.at[0]}"


@pytest.mark.parametrize("case", MADE, ids=name)
def test_it_computes_what_eager_pytorch_computes(case: Case) -> None:
    before, after = run(case)
    assert isinstance(after, CapturedModel), after
    with torch.no_grad():
        expected = case.net(*case.args)
    torch.testing.assert_close(after.run(*case.args), expected, **EXACT)
    there = Counter(node.op for node in after.graph.nodes)
    assert {op: there[op] for op in case.left} == case.left
    assert before.graph.outputs == after.graph.outputs  # results keep their names
    assert after.fx_graph is not before.fx_graph and not set(after.replaced) & set(after.graph.producers)


@pytest.mark.parametrize("case", MADE, ids=name)
def test_it_computes_the_same_on_other_inputs(case: Case) -> None:
    """What was computed once must not have been frozen."""
    if case.rewrite == "closed_form_inverse":
        pytest.skip("its matrices have to stay invertible, and rigid")
    _, after = run(case)
    assert isinstance(after, CapturedModel)
    others = tuple(each.flip(0) * 0.7 if each.is_floating_point() else each for each in case.args)
    with torch.no_grad():
        torch.testing.assert_close(after.run(*others), case.net(*others), **EXACT)


@pytest.mark.parametrize("case", REFUSED, ids=name)
def test_it_says_why_not(case: Case) -> None:
    before, answer = run(case)
    assert isinstance(answer, Refused) and case.refusal in answer.reason
    with torch.no_grad():
        torch.testing.assert_close(before.run(*case.args), case.net(*case.args))  # nothing was touched


@pytest.mark.parametrize(("op", "form", "bound"), [("gelu", "sigmoid", 0.0204), ("silu", "hardswish", 0.143)])
def test_an_approximation_stays_within_its_known_distance(op: str, form: str, bound: float) -> None:
    """The largest distance over all x: of x sigmoid(1.702 x) from GELU, and of hard-swish from SiLU at x = -3 and 3."""
    function = getattr(F, op)
    y = torch.linspace(-12, 12, 20001)
    _, after = run(Case("spell_activation", (op, 0), Net(lambda n, y: function(y) + 0.0), (y,), {"form": form}))
    assert isinstance(after, CapturedModel)
    worst = (after.run(y) - function(y)).abs().max().item()
    assert 0.5 * bound < worst <= bound
