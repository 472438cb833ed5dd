from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.target import load_target
from bitwright.qat.callback import QATCallback
from bitwright.qat.sparsity.patterns import Pattern, cubic
from bitwright.qat.sparsity.permutation import best_order, kept_magnitude
from bitwright.qat.sparsity.sparse_weights import Sparsity
from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import quantize

PICTURES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 4


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, *callbacks: Any) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(PICTURES), LABELS).backward()
        optimizer.step()
        for callback in callbacks:
            callback.on_step()


def test_two_of_four_are_the_largest_by_brute_force() -> None:
    weight = torch.randn(5, 8, 3, 3)
    kept = Pattern.parse("2:4").keeps(weight)
    for out, group, row, column in np.ndindex(5, 2, 3, 3):
        four = weight[out, 4 * group : 4 * group + 4, row, column].abs()
        best = max(combinations(range(4), 2), key=lambda pair: float(four[list(pair)].sum()))
        assert kept[out, 4 * group : 4 * group + 4, row, column].nonzero().flatten().tolist() == list(best)


@pytest.mark.parametrize("text", ["1x4", "4x1", "16x1"])
def test_blocks_that_go_are_the_smallest(text: str) -> None:
    pattern = Pattern.parse(text, share=0.25)
    weight = torch.randn(32, 8)
    rows, columns = map(int, text.split("x"))
    kept = pattern.keeps(weight)
    sums = nn.functional.avg_pool2d(weight.abs()[None], (rows, columns))[0]
    whole = kept.reshape(32 // rows, rows, 8 // columns, columns)
    by_block = whole.all(dim=3).all(dim=1)
    assert torch.equal(by_block, whole.any(dim=3).any(dim=1))
    assert float((~by_block).float().mean()) == 0.25
    assert sums[~by_block].max() < sums[by_block].min()


@pytest.mark.parametrize("text", ["2:4", "4x1"])
def test_a_gradual_pattern_drops_ever_more_and_ends_whole(text: str) -> None:
    pattern, weight = Pattern.parse(text), torch.randn(16, 16, 3, 3)
    steps = [pattern.keeps(weight, progress) for progress in (0.0, 0.3, 0.7, 1.0)]
    assert steps[0].all()
    for more, less in pairwise(steps):
        assert not (less & ~more).any()
    assert float(steps[-1].float().mean()) == 0.5
    assert torch.equal(steps[-1], pattern.keeps(weight))


def test_the_cubic_is_that_of_the_paper() -> None:
    # Zhu & Gupta 2017, eq. 1: s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 with s_i = 0.
    assert [cubic(step, 10, 30) for step in (0, 10, 15, 20, 30, 99)] == [0, 0, 1 - 0.75**3, 1 - 0.5**3, 1, 1]


@pytest.mark.parametrize(
    ("text", "share", "message"),
    [
        ("4:2", None, "of N:M, N weights of M stay; give 0 < N < M"),
        ("2:4", 0.7, "pattern 2:4 makes 0.5 of all weights zero; leave it out"),
        ("16x1", 1.0, "give blocks of at least 1x1 and 0 < share < 1"),
        ("half", None, r"pattern = 'half' is neither N:M \(2:4\) nor ROWSxCOLUMNS"),
    ],
)
def test_patterns_that_are_none(text: str, share: float | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pattern.parse(text, share=share)


def every_order(count: int, m: int) -> list[list[int]]:
    """Each way to divide columns into groups of m, once."""
    if count == 0:
        return [[]]

    def ways(left: tuple[int, ...]) -> list[list[int]]:
        if not left:
            return [[]]
        found = []
        for others in combinations(left[1:], m - 1):
            rest = tuple(each for each in left[1:] if each not in others)
            found += [[left[0], *others, *more] for more in ways(rest)]
        return found

    return ways(tuple(range(count)))


def test_the_search_finds_the_best_of_all_orders() -> None:
    generator = np.random.default_rng(0)
    orders = {count: every_order(count, 4) for count in (8, 12)}
    assert (len(orders[8]), len(orders[12])) == (35, 5775)
    found = []
    for count in (8, 8, 8, 12, 12, 12):
        matrix = np.abs(generator.normal(size=(12, count)) * generator.lognormal(size=count))
        truth = max(kept_magnitude(matrix[:, order], 2, 4) for order in orders[count])
        own = kept_magnitude(matrix[:, best_order(matrix, 2, 4)], 2, 4)
        given = kept_magnitude(matrix, 2, 4)
        assert given <= own <= truth * (1 + 1e-12)
        found.append(own >= truth * (1 - 1e-12))
    assert all(found)


def test_channels_change_places_and_the_network_stays() -> None:
    model, pattern = network().eval(), Pattern.parse("2:4")
    with torch.no_grad():
        model[3].weight *= torch.rand(16, generator=torch.Generator().manual_seed(2))[:, None, None] * 3
        before = model(PICTURES)
        dropped = float((model[3].weight * ~pattern.keeps(model[3].weight)).abs().sum())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    dense = model[3].weight.detach().clone()
    sparsity = Sparsity(model, optimizer, example=(PICTURES[:1],), skip=["7"], begin=10, end=20)
    assert [each.group for each in sparsity.exchanged] == ["0"]
    assert sparsity.exchanged[0].after > sparsity.exchanged[0].before
    with torch.no_grad():
        assert torch.allclose(model(PICTURES), before, atol=1e-5)
    weight = model[3].weight.detach()
    assert not torch.equal(weight, dense)
    assert float((weight * ~pattern.keeps(weight)).abs().sum()) < dropped


def test_forward_sees_zeros_and_the_optimizer_the_weights_behind_them() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weight = model[3].weight
    dense = weight.detach().clone()
    sparsity = Sparsity(model, optimizer, decay=0.01)
    for _ in range(3):
        mask = Pattern.parse("2:4").keeps(dense)
        assert torch.equal(weight != 0, mask)
        assert torch.allclose(weight.detach(), dense * mask, rtol=1e-5, atol=1e-8)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(PICTURES), LABELS).backward()
        # SR-STE, Zhou et al. 2021, eq. 9.
        dense = dense - 0.1 * (weight.grad + 0.01 * dense * ~mask)
        optimizer.step()
        sparsity.on_step()
    report = sparsity.finish()
    assert report.zeros == {"3.weight": 0.5, "7.weight": 0.5}
    assert report.dense == {"0.weight": "3 input channels are no multiple of 4"}
    assert torch.allclose(weight.detach(), dense * Pattern.parse("2:4").keeps(dense), rtol=1e-5, atol=1e-8)


def test_codes_of_dropped_weights_are_the_code_of_zero_at_the_end_of_qat() -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sparsity = Sparsity(model, optimizer, end=6, freeze_after=8)
    scheme = load_target("x86-vnni").scheme()
    qat = QATCallback(model, optimizer, scheme=scheme, calibration=[(PICTURES, LABELS)])
    train(model, optimizer, 12, qat, sparsity)
    sparsity.finish()
    mask = Pattern.parse("2:4").keeps(model[3].weight)
    result = qat.finish()
    (ref,) = (ref for ref in result.plan.weights if ref.module_path == "3.weight")
    codes = quantize(result.captured.values[result.captured.value_refs[ref]], result.qparams[ref])
    assert not result.qparams[ref].zero_point.any()
    assert not codes[~mask].any()
    assert int((codes != 0).sum()) > codes.numel() // 3


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped() -> None:
    def begun() -> tuple[nn.Module, torch.optim.Optimizer, Sparsity]:
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        return model, optimizer, Sparsity(model, optimizer, pattern="4x1", share=0.75, end=8)

    model, optimizer, sparsity = begun()
    train(model, optimizer, 4, sparsity)
    saved = [dict(each.state_dict()) for each in (model, optimizer, sparsity)]
    saved = [torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, s) for s in saved]
    train(model, optimizer, 6, sparsity)
    again = begun()
    for each, state in zip(again, saved, strict=True):
        each.load_state_dict(state)
    train(again[0], again[1], 6, again[2])
    for own, want in zip(again[0].state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(own, want)
    assert sparsity.finish().zeros["3.weight"] == 0.75
    again[2].finish()
    with pytest.raises(InputError, match="the checkpoint is of pattern 4x1 or of another network; this is 2:4"):
        Sparsity(again[0], again[1], pattern="2:4").load_state_dict(saved[2])


def test_what_cannot_be_sparse_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    with pytest.raises(InputError, match=r"no weight can have the pattern 2:4: 0\.weight: 3 input channels"):
        Sparsity(model, optimizer)
    with pytest.raises(InputError, match="skip names no module of this model: 9"):
        Sparsity(model, optimizer, skip=["9"])
    wide = network()
    sparsity = Sparsity(wide, torch.optim.SGD(wide.parameters(), lr=1), end=5)
    with pytest.raises(InputError, match="step 0: the pattern is complete at step 5; train on"):
        sparsity.finish()


def test_layers_have_patterns_of_their_own() -> None:
    model = network().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsity = Sparsity(model, optimizer, pattern={"": "2:4", "7": "4x1"}, share=0.25, example=(PICTURES[:1],))
    assert [each.group for each in sparsity.exchanged] == ["0"]  # what only blocks one channel wide read has no order
    shown = [model[place].weight.detach().clone() for place in (3, 7)]
    assert torch.equal(Pattern.parse("2:4").keeps(shown[0]), shown[0] != 0)
    assert torch.equal((shown[1] == 0).all(dim=0), (shown[1] == 0).any(dim=0))
    train(model, optimizer, 2, sparsity)
    saved = sparsity.state_dict()
    report = sparsity.finish()
    assert report.pattern == "2:4 and 4x1"
    assert report.patterns == {"3.weight": "2:4", "7.weight": "4x1"}
    assert report.zeros == {"3.weight": 0.5, "7.weight": 0.25}
    assert report.dense == {"0.weight": "3 input channels are no multiple of 4"}
    other = Sparsity(model, optimizer, pattern={"3": "4x1", "7": "2:4"})
    with pytest.raises(InputError, match=r"^the checkpoint is of pattern 2:4 and 4x1 or of another network; this is "):
        other.load_state_dict(saved)
    assert other.finish().dense == {"0.weight": "no pattern is given for it"}


def test_channels_that_blocks_are_made_of_keep_their_places() -> None:
    model = network().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsity = Sparsity(model, optimizer, pattern={"0": "16x1", "3": "2:4"}, example=(PICTURES[:1],))
    assert sparsity.exchanged == ()


def test_patterns_that_contradict_are_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    with pytest.raises(InputError, match=r"^pattern names no module of this model: head$"):
        Sparsity(model, optimizer, pattern={"0": "2:4", "head": "2:4"})
    message = r"^share = 0\.3: patterns 1:4 and 2:4 say how many weights become zero; leave it out$"
    with pytest.raises(InputError, match=message):
        Sparsity(model, optimizer, pattern={"0": "2:4", "1": "1:4"}, share=0.3)
    model[1].weight = model[0].weight
    message = r"^0\.weight and 1\.weight are one weight, and patterns 2:4 and 4x1 are given for it; give it one$"
    with pytest.raises(InputError, match=message):
        Sparsity(model, torch.optim.SGD(model.parameters(), lr=1), pattern={"0": "2:4", "1": "4x1"})
