from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.passes import fold_norm_ahead
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme

CHANNELS, SIZE = 4, 6


def lively(norm: nn.Module, spread: float = 2.0) -> nn.Module:
    """Statistics and parameters far from those of a fresh batch norm."""
    with torch.no_grad():
        for name, tensor in norm.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(1 / spread, spread) if "var" in name else tensor.normal_()
    return norm


def operators(captured: CapturedModel) -> list[str]:
    return [node.op for node in captured.graph.nodes]


@dataclass
class Layer:
    """A layer behind a norm, what lies between, and whether folding is exact."""

    build: Callable[[], nn.Module]
    exact: bool
    rank: int = 4


def conv(rank: int, *, groups: int, kernel: int, padding: int | str, bias: bool, mode: str = "zeros") -> Layer:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 3]
    exact = padding in (0, "valid") or mode != "zeros" or (padding == "same" and kernel == 1)

    def build() -> nn.Module:
        return kind(CHANNELS, 8, kernel, padding=padding, groups=groups, bias=bias, padding_mode=mode)

    return Layer(build, exact, rank)


def transposed(rank: int, *, groups: int, kernel: int, stride: int, padding: int, bias: bool) -> Layer:
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 3]
    exact = (kernel, stride, padding) == (1, 1, 0)
    return Layer(lambda: kind(CHANNELS, 6, kernel, stride, padding, groups=groups, bias=bias), exact, rank)


class Transposed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, -1)


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


FLAT = CHANNELS * SIZE * SIZE
LINEAR = {
    "channels last": Layer(lambda: nn.Sequential(Transposed(), nn.Linear(CHANNELS, 5)), True),
    "flatten": Layer(lambda: nn.Sequential(nn.Flatten(), nn.Linear(FLAT, 5)), True),
    "mean": Layer(lambda: nn.Sequential(Mean(), nn.Linear(CHANNELS, 5, bias=False)), True),
    "rows": Layer(lambda: nn.Linear(SIZE, 5), False),  # the channels are not what it sums over
    "average": Layer(lambda: nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(CHANNELS, 4, 2)), True),
    "padded average": Layer(lambda: nn.Sequential(nn.AvgPool2d(2, padding=1), nn.Conv2d(CHANNELS, 4, 2)), False),
    "maximum": Layer(lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(CHANNELS, 4, 2)), False),
    "activation": Layer(lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(CHANNELS, 4, 2)), False),
}

RANKS, GROUPS = st.sampled_from([3, 4, 5]), st.sampled_from([1, 2])
layers = st.one_of(
    st.builds(conv, RANKS, groups=st.sampled_from([1, 2, CHANNELS]), kernel=st.sampled_from([1, 3]),
              padding=st.sampled_from([0, 1, "same", "valid"]), bias=st.booleans()),
    st.builds(conv, st.just(4), groups=GROUPS, kernel=st.just(3), padding=st.just(1), bias=st.booleans(),
              mode=st.sampled_from(["reflect", "replicate"])),
    st.builds(transposed, RANKS, groups=GROUPS, kernel=st.sampled_from([1, 2]), stride=st.sampled_from([1, 2]),
              padding=st.just(0), bias=st.booleans()),
    st.sampled_from(list(LINEAR.values())),
)  # fmt: skip


class Behind(nn.Module):
    """Some layers that read one norm, and perhaps somebody else who does."""

    def __init__(self, found: list[Layer], *, shared: bool, before: bool) -> None:
        super().__init__()
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[found[0].rank - 3]
        self.norm, self.shared = lively(norm(CHANNELS)), shared
        self.before = nn.ReLU() if before else nn.Identity()
        self.layers = nn.ModuleList(each.build() for each in found)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        y = self.norm(self.before(x))
        return [layer(y) for layer in self.layers] + ([y.abs()] if self.shared else [])


branches = st.builds(
    lambda found, shared, before: ([each for each in found if each.rank == found[0].rank], shared, before),
    st.lists(layers, min_size=1, max_size=2), st.booleans() | st.just(False), st.booleans(),
)  # fmt: skip


class Branches(nn.Module):
    """Many at once: it is the capture that takes the time."""

    def __init__(self, nets: list[Behind]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        return [result for net, x in zip(self.nets, inputs, strict=True) for result in net(x)]


@settings(max_examples=2, deadline=None)
@given(drawn=st.lists(branches, min_size=6, max_size=6), seed=st.integers(0, 1000))
def test_a_norm_goes_into_the_layers_behind_it_exactly_where_that_changes_nothing(
    drawn: list[tuple[list[Layer], bool, bool]], seed: int
) -> None:
    folds_where_exact(drawn, seed)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(drawn=st.lists(branches, min_size=6, max_size=6), seed=st.integers(0, 1000))
def test_so_it_does_in_many_networks(drawn: list[tuple[list[Layer], bool, bool]], seed: int) -> None:
    folds_where_exact(drawn, seed)


def folds_where_exact(drawn: list[tuple[list[Layer], bool, bool]], seed: int) -> None:
    torch.manual_seed(seed)
    nets = [Behind(found, shared=shared, before=before) for found, shared, before in drawn]
    net = Branches(nets).double().eval()
    inputs = [torch.randn(2, CHANNELS, *[SIZE] * (found[0].rank - 2), dtype=torch.float64) for found, _, _ in drawn]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_norm_ahead, "WORTH", float("inf"))
        folded = fold_batch_norm(capture(net, tuple(inputs)))
    kept = {node.module_path.split(".")[1] for node in folded.graph.nodes if node.op == "batch_norm"}
    assert kept == {
        str(i) for i, (found, shared, _) in enumerate(drawn) if shared or not all(each.exact for each in found)
    }
    with torch.no_grad():
        torch.testing.assert_close(folded.run(*inputs), net(*inputs), rtol=1e-9, atol=1e-9)


class Levels(nn.Module):
    """A head that several levels share."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = lively(nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 3)

    def forward(self, large: torch.Tensor, small: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.conv(self.norm(level.relu())).relu() for level in (large, small))


def test_a_norm_and_a_layer_that_run_several_times() -> None:
    model, levels = Levels().eval(), (torch.randn(1, 4, 8, 8), torch.randn(1, 4, 5, 5))
    folded = fold_batch_norm(capture(model, levels))
    assert operators(folded) == ["relu", "conv2d", "relu"] * 2
    with torch.no_grad():
        torch.testing.assert_close(folded.run(*levels), model(*levels), rtol=1e-4, atol=1e-5)


class Elsewhere(Levels):
    """The layer runs on what the norm has not seen, too."""

    def forward(self, large: torch.Tensor, small: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.conv(self.norm(large.relu())), self.conv(small)


def test_a_layer_that_also_reads_something_else_stays() -> None:
    model, levels = Elsewhere().eval(), (torch.randn(1, 4, 8, 8), torch.randn(1, 4, 5, 5))
    folded = fold_batch_norm(capture(model, levels))
    assert "batch_norm" in operators(folded)
    with torch.no_grad():
        torch.testing.assert_close(folded.run(*levels), model(*levels))


def test_a_norm_that_trains_on_stays_in_front() -> None:
    levels = (torch.randn(1, 4, 8, 8), torch.randn(1, 4, 5, 5))
    assert "batch_norm" in operators(fold_batch_norm(capture(Levels().eval(), levels), trains_on=True))


class Tokens(nn.Module):
    """Linear layers over tokens whose norms want the channels at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8, bias=False), nn.Linear(8, 4)
        self.turned, self.flat = lively(nn.BatchNorm1d(8)), lively(nn.BatchNorm1d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.turned(self.first(x).transpose(1, 2)).transpose(1, 2).relu()
        return self.flat(self.last(y).flatten(0, 1)).reshape(x.shape[0], x.shape[1], 4)


def test_a_norm_behind_a_layer_and_what_moves_its_channels() -> None:
    model, x = Tokens().eval(), torch.randn(2, 5, 6)
    captured = capture(model, (x,))
    folded = fold_batch_norm(captured)
    assert "batch_norm" not in operators(folded)
    known: dict[object, torch.Tensor] = {}
    captured.run(x, transform=lambda ref, tensor: known.setdefault(ref, tensor))

    def same(ref: object, tensor: torch.Tensor) -> torch.Tensor:
        before = next((old for old, new in folded.replaced.items() if new == ref), ref)
        if before in known:  # whoever keeps its name, or stands for what was removed, has the values
            torch.testing.assert_close(tensor, known[before], rtol=1e-4, atol=1e-5)
        return tensor

    folded.run(x, transform=same)


def test_heads_that_a_norm_tells_apart_stay() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 8), lively(nn.BatchNorm1d(5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.linear(x).reshape(2, 5, 8))  # its channels are the tokens

    model, x = Heads().eval(), torch.randn(2, 5, 6)
    folded = fold_batch_norm(capture(model, (x,)))
    assert "batch_norm" in operators(folded)
    with torch.no_grad():
        torch.testing.assert_close(folded.run(x), model(x))


# --- what codes would lose ---


def sensors(*, unlike: bool) -> tuple[nn.Module, torch.Tensor]:
    """A network whose first norm makes channels alike that measure in different units, and its data."""
    torch.manual_seed(0)
    units = torch.tensor([1e-3, 1.0, 50.0, 1e3] if unlike else [0.8, 1.0, 1.1, 1.3])
    data = torch.randn(64, 4, 9, 9) * units.reshape(4, 1, 1)
    net = nn.Sequential(nn.BatchNorm2d(4, momentum=None), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    net.train()(data)
    return net.eval(), data


@pytest.mark.parametrize("unlike", [True, False])
def test_a_norm_stays_where_codes_need_it(unlike: bool, u8s8: QuantScheme) -> None:
    net, data = sensors(unlike=unlike)
    captured = capture(net, (data[:8],))
    decided = fold_batch_norm(captured)
    assert ("batch_norm" in operators(decided)) == unlike
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_norm_ahead, "WORTH", float("inf"))
        forced = fold_batch_norm(captured)
    assert "batch_norm" not in operators(forced)
    wanted = captured.run(data[:8])
    noises = [
        float((quantize(each, u8s8, [data], bias_correction=False).run(data[:8]) - wanted).square().sum())
        for each in (decided, forced)
    ]
    assert fold_norm_ahead.WORTH * noises[0] < noises[1] if unlike else noises[0] == noises[1]
