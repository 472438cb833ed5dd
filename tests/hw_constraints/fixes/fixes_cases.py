"""For every fix: networks on which it removes a finding, and networks that it must leave alone."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.parity import Inputs


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
    """A network for one fix.

    Attributes:
        fix: its name.
        name: what is special.
        net: the network.
        args: of its forward.
        target: the accelerator.
        recorded: whether the arguments are given as a recording.
        refusal: a part of the reason when the fix must not be made; empty when it must.
    """

    fix: str
    name: str
    net: nn.Module
    args: tuple[torch.Tensor, ...]
    target: str = "ethos-u85-1024"
    recorded: bool = False
    refusal: str = ""

    def records(self) -> list[Inputs]:
        return [Inputs(args=self.args)] if self.recorded else []


def x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def conv(i: int, o: int, k: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **more)


def poses(count: int) -> torch.Tensor:
    """Cameras: rotations about the vertical axis and translations of some metres."""
    angle = torch.linspace(0.1, 2.0, count)
    pose = torch.eye(4).repeat(count, 1, 1)
    pose[:, 0, 0], pose[:, 1, 1] = angle.cos(), angle.cos()
    pose[:, 0, 1], pose[:, 1, 0] = -angle.sin(), angle.sin()
    pose[:, :3, 3] = x(count, 3)
    return pose


def masked_write(net: Any, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    z = y.clone()
    z[mask] = torch.relu(y[mask]) * 2
    return net.head(z)


def masked_zero(net: Any, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    z = y.clone()
    z[mask] = 0.0
    return net.head(z)


def masked_normalised(net: Any, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    z = y.clone()
    z[mask] = y[mask] - y[mask].mean(0)  # over all masked rows
    return net.head(z)


def indexed_write(net: Any, y: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    z = y.clone()
    z[:, index] = 0.0
    return net.head(z)


def channels_last_mlp(net: Any, y: torch.Tensor) -> torch.Tensor:
    y = net.stem(y).permute(0, 2, 3, 1)
    return net.head(net.second(F.relu(net.first(y))).permute(0, 3, 1, 2))


def channels_last_norm(net: Any, y: torch.Tensor) -> torch.Tensor:
    y = net.stem(y).permute(0, 2, 3, 1)
    return net.head(net.first(net.norm(y)).permute(0, 3, 1, 2))


def fetched_again(net: Any, y: torch.Tensor) -> torch.Tensor:
    y = net.scores(y)
    best = y.topk(4, 1).indices
    return y.gather(1, best) * 2.0


def double_use(net: Any, y: torch.Tensor) -> torch.Tensor:
    y = net.wide(y)
    return net.head(y) + y.mean()


MASK = torch.arange(16).reshape(1, 16) % 3 == 0
CAMERAS = Net(
    lambda net, y: net.head(torch.stack([net.body(y[:, i]) for i in range(3)], 1).flatten(1, 2)),
    body=nn.Sequential(conv(4, 8, stride=2), nn.ReLU()),
    head=conv(24, 8),
)
CASES = [
    Case("drop_no_effect", "relu twice", Net(lambda n, y: n.b(F.relu(F.relu(n.a(y)))), a=conv(3, 8), b=conv(8, 8)),
         (x(1, 3, 16, 16),)),
    Case("drop_no_effect", "wider and back", Net(lambda n, y: n.b(n.a(y).double().float()), a=conv(3, 8), b=conv(8, 8)),
         (x(1, 3, 16, 16),), "x86-vnni"),
    Case("drop_no_effect", "narrower", Net(lambda n, y: n.b(n.a(y).half().float()), a=conv(3, 8), b=conv(8, 8)),
         (x(1, 3, 16, 16),), "tensorrt-orin", refusal="changes its operand"),
    Case("merge_transposes", "round trip", Net(lambda n, y: n.b(F.relu(n.a(y).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
         a=conv(3, 8), b=conv(8, 8)), (x(1, 3, 16, 16),)),
    Case("merge_transposes", "two in a row", Net(lambda n, y: n.a(y).permute(0, 2, 3, 1).transpose(1, 2) * 2.0,
         a=conv(3, 8)), (x(1, 3, 16, 16),)),
    Case("merge_transposes", "length 1", Net(lambda n, y: n.a(y.transpose(0, 1)), a=nn.Linear(8, 8)), (x(1, 5, 8),)),
    Case("merge_transposes", "norm between", Net(channels_last_norm, stem=conv(3, 8), norm=nn.LayerNorm(8),
         first=nn.Linear(8, 8), head=conv(8, 8)), (x(1, 3, 8, 8),), refusal="no transpose before it"),
    Case("linear_as_conv", "mlp", Net(channels_last_mlp, stem=conv(3, 8), first=nn.Linear(8, 16),
         second=nn.Linear(16, 8), head=conv(8, 8)), (x(1, 3, 8, 8),)),
    Case("linear_as_conv", "norm between", Net(channels_last_norm, stem=conv(3, 8), norm=nn.LayerNorm(8),
         first=nn.Linear(8, 8), head=conv(8, 8)), (x(1, 3, 8, 8),), refusal="not just linear layers"),
    Case("linear_as_conv", "token mixing", Net(lambda n, y: n.head(n.mix(n.stem(y).transpose(1, 2)).transpose(1, 2)),
         stem=nn.Linear(8, 8), mix=nn.Linear(16, 16), head=nn.Linear(8, 8)), (x(1, 16, 8),), "tensorrt-orin"),
    Case("mean_as_pool", "kept axes", Net(lambda n, y: n.b(n.a(y).mean((2, 3), keepdim=True)), a=conv(3, 8),
         b=conv(8, 8, 1)), (x(1, 3, 16, 16),), "ti-tda4"),
    Case("mean_as_pool", "dropped axes", Net(lambda n, y: n.b(n.a(y).mean((-2, -1))), a=conv(3, 8),
         b=nn.Linear(8, 8)), (x(1, 3, 16, 16),), "ti-tda4"),
    Case("mean_as_pool", "over channels", Net(lambda n, y: n.a(y).mean(1, keepdim=True), a=conv(3, 8)),
         (x(1, 3, 16, 16),), "ti-tda4", refusal="not taken over height and width alone"),
    Case("fixed_pool", "does not divide", Net(lambda n, y: F.adaptive_avg_pool2d(n.a(y), 6), a=conv(3, 8)),
         (x(1, 3, 16, 16),)),
    Case("split_pool", "sliding", Net(lambda n, y: n.b(F.max_pool2d(n.a(y), 13, 1, 6)), a=conv(3, 8), b=conv(8, 8)),
         (x(1, 3, 32, 32),)),
    Case("split_pool", "average too large", Net(lambda n, y: n.b(F.avg_pool2d(n.a(y), (320, 1))), a=conv(3, 8, 1),
         b=conv(8, 8)), (x(1, 3, 640, 4),)),
    Case("split_pool", "whole image", Net(lambda n, y: n.b(F.adaptive_avg_pool2d(n.a(y), 1)), a=conv(3, 8),
         b=conv(8, 8, 1)), (x(1, 3, 56, 56),), "ti-tda4"),
    Case("split_pool", "whole image of prime size", Net(lambda n, y: n.b(F.adaptive_avg_pool2d(n.a(y), 1)),
         a=conv(3, 8), b=conv(8, 8, 1)), (x(1, 3, 37, 37),), "ti-tda4", refusal="37 x 37 is no product"),
    Case("split_pool", "prime", Net(lambda n, y: n.b(F.avg_pool2d(n.a(y), (257, 1))), a=conv(3, 8, 1), b=conv(8, 8)),
         (x(1, 3, 514, 4),), refusal="no product of windows"),
    Case("space_to_depth_stem", "7x7", Net(lambda n, y: n.b(F.relu(n.stem(y))), stem=conv(3, 16, 7, stride=2),
         b=conv(16, 8)), (x(1, 3, 32, 32),), "amd-dpu"),
    Case("space_to_depth_stem", "without padding", Net(lambda n, y: n.b(F.relu(n.stem(y))),
         stem=nn.Conv2d(3, 16, 8, 4), b=conv(16, 8)), (x(1, 3, 32, 32),), "amd-dpu"),
    Case("split_deconv", "two groups", Net(lambda n, y: n.b(n.up(n.a(y))), a=conv(3, 8),
         up=nn.ConvTranspose2d(8, 8, 2, 2, groups=2), b=conv(8, 8)), (x(1, 3, 8, 8),)),
    Case("split_deconv", "depthwise", Net(lambda n, y: n.b(n.up(n.a(y))), a=conv(3, 32),
         up=nn.ConvTranspose2d(32, 32, 2, 2, groups=32), b=conv(32, 8)), (x(1, 3, 8, 8),), refusal="it has 32 groups"),
    Case("masked_write", "rows through relu", Net(masked_write, head=nn.Linear(8, 8)), (x(1, 16, 8), MASK), "x86-vnni"),
    Case("masked_write", "a number", Net(masked_zero, head=nn.Linear(8, 8)), (x(1, 16, 8), MASK), "x86-vnni"),
    Case("masked_write", "over all rows", Net(masked_normalised, head=nn.Linear(8, 8)), (x(1, 16, 8), MASK), "x86-vnni",
         refusal="a computed tensor is added"),
    Case("masked_write", "an index", Net(indexed_write, head=nn.Linear(8, 8)), (x(1, 16, 8), torch.tensor([3, 1])),
         "x86-vnni", refusal="one boolean mask"),
    Case("closed_form_inverse", "poses", Net(lambda n, p, y: n.a(y @ torch.linalg.inv(p)), a=nn.Linear(4, 8)),
         (poses(6), x(6, 5, 4)), "tensorrt-orin", recorded=True),
    Case("closed_form_inverse", "2x2", Net(lambda n, p, y: n.a(y @ torch.inverse(p)), a=nn.Linear(2, 8)),
         (torch.eye(2).repeat(6, 1, 1) + 0.1 * x(6, 2, 2), x(6, 5, 2)), "tensorrt-orin", recorded=True),
    Case("closed_form_inverse", "3x3", Net(lambda n, p, y: n.a(y @ torch.inverse(p)), a=nn.Linear(3, 8)),
         (torch.eye(3).repeat(6, 1, 1) + 0.1 * x(6, 3, 3), x(6, 5, 3)), "tensorrt-orin", recorded=True),
    Case("closed_form_inverse", "4x4", Net(lambda n, p, y: n.a(y @ torch.inverse(p)), a=nn.Linear(4, 8)),
         (torch.eye(4).repeat(6, 1, 1) + 0.1 * x(6, 4, 4), x(6, 5, 4)), "tensorrt-orin", recorded=True),
    Case("closed_form_inverse", "5x5", Net(lambda n, p, y: n.a(y @ torch.inverse(p)), a=nn.Linear(5, 8)),
         (torch.eye(5).repeat(6, 1, 1), x(6, 5, 5)), "tensorrt-orin", refusal="lose too many digits"),
    Case("conv3d_as_conv2d", "in depth", Net(lambda n, y: n.a(y), a=nn.Conv3d(4, 8, (3, 1, 1), padding=(1, 0, 0))),
         (x(1, 4, 6, 8, 8),)),
    Case("conv3d_as_conv2d", "all", Net(lambda n, y: n.a(y), a=nn.Conv3d(4, 8, 3, 2, padding=1)), (x(2, 4, 6, 8, 8),)),
    Case("conv3d_as_conv2d", "grouped", Net(lambda n, y: n.a(y), a=nn.Conv3d(4, 8, 3, padding=1, groups=2)),
         (x(1, 4, 6, 8, 8),), refusal="mix the groups"),
    Case("write_out_attention", "heads", Net(lambda n, y: F.scaled_dot_product_attention(*n.a(y).chunk(3, -1)),
         a=nn.Linear(8, 24)), (x(2, 2, 16, 8),), "hexagon-htp"),
    Case("write_out_attention", "causal", Net(lambda n, y: F.scaled_dot_product_attention(*n.a(y).chunk(3, -1),
         is_causal=True), a=nn.Linear(8, 24)), (x(2, 2, 16, 8),), "hexagon-htp"),
    Case("write_out_attention", "boolean mask", Net(lambda n, y, m: F.scaled_dot_product_attention(
         *n.a(y).chunk(3, -1), attn_mask=m), a=nn.Linear(8, 24)), (x(2, 2, 16, 8), MASK.expand(16, 16)),
         "hexagon-htp", refusal="its mask is boolean"),
    Case("batch_loop", "cameras", CAMERAS, (x(2, 3, 4, 16, 16),)),
    Case("direct_top_k", "gather", Net(fetched_again, scores=nn.Linear(8, 32)), (x(2, 8),), "x86-vnni"),
    Case("direct_top_k", "gather of another tensor", Net(lambda n, y: n.a(y).gather(1, n.a(y).topk(4, 1).indices),
         a=nn.Linear(8, 32)),
         (x(2, 8),), "x86-vnni", refusal="another tensor"),
    Case("direct_top_k", "sort", Net(lambda n, y: n.a(y).sort(-1, descending=True)[0][:, :4] * 2.0, a=nn.Linear(8, 32)),
         (x(2, 8),), "x86-vnni"),
    Case("pad_channels", "61", Net(lambda n, y: n.b(F.relu(n.a(y))), a=conv(3, 61), b=conv(61, 8)), (x(1, 3, 16, 16),)),
    Case("pad_channels", "read twice", Net(double_use, wide=conv(3, 61), head=conv(61, 8)), (x(1, 3, 16, 16),),
         "x86-vnni", refusal="several operators read"),
    Case("fold_pad", "same on both sides", Net(lambda n, y: n.b(F.pad(n.a(y), (1, 1, 1, 1))), a=conv(3, 8),
         b=nn.Conv2d(8, 8, 3)), (x(1, 3, 16, 16),)),
    Case("broadcast_repeat", "position", Net(lambda n, y, p: n.b(n.a(y) + p.repeat(1, 1, 16, 16)), a=conv(3, 8),
         b=conv(8, 8)), (x(1, 3, 16, 16), x(1, 8, 1, 1))),
    Case("merge_duplicates", "neck twice", Net(lambda n, y: n.b(F.relu(n.a(y)) + F.relu(n.a(y)) * 0.5), a=conv(3, 8),
         b=conv(8, 8)), (x(1, 3, 16, 16),)),
    Case("spell_activation", "silu", Net(lambda n, y: n.b(F.silu(n.a(y))), a=conv(3, 8), b=conv(8, 8)),
         (x(1, 3, 16, 16),), "edge-tpu"),
    Case("approximate_activation", "gelu", Net(lambda n, y: n.b(F.gelu(n.a(y))), a=conv(3, 8), b=conv(8, 8)),
         (x(1, 3, 16, 16),), "edge-tpu"),
]  # fmt: skip
