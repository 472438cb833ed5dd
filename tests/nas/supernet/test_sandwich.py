from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from bitwright.nas.elastic import parts
from bitwright.nas.supernet.sandwich import Sandwich
from bitwright.quant.errors import InputError


def _by_hand(weights: dict[str, torch.Tensor], images: torch.Tensor, *, width: int, kernel: int, deep: bool):
    """The tiny network without modules: the first channels, the centre of the kernel, each batch's own statistics."""
    cut = (5 - kernel) // 2

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = (weights[f"{name}.{part}"][:width].view(1, -1, 1, 1) for part in ("weight", "bias"))
        return (y - mean) / torch.sqrt(var + 1e-5) * scale + shift

    stem = weights["stem.weight"][:width, :, cut : 5 - cut, cut : 5 - cut]
    y = torch.relu(norm(F.conv2d(images, stem, padding=kernel // 2), "norm"))
    if deep:
        inner, bias = weights["inner.0.weight"][:width, :width], weights["inner.0.bias"][:width]
        y = torch.relu(y + norm(F.conv2d(y, inner, bias, padding=1), "inner.1"))
    return y.mean((2, 3)) @ weights["classifier.weight"][:, :width].T + weights["classifier.bias"]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_gradients_are_those_of_a_loop_written_by_hand(tiny: ModuleType, share: float) -> None:
    elastic, task = tiny.TinyElastic(), tiny.TinyTask()
    candidates = [tiny.candidate(), tiny.candidate(2, 1, False), tiny.candidate(4, 3, True)]
    ((images,), labels) = batch = next(iter(task.batches(0)))
    losses = Sandwich(elastic, task, labels=share).backward(candidates, batch, seed=0)

    weights = {name: each.detach().clone().requires_grad_() for name, each in elastic.largest.named_parameters()}
    logits = [_by_hand(weights, images, **elastic.space.architecture(each)) for each in candidates]
    truth = F.one_hot(labels, tiny.CLASSES).float()
    taught = logits[0].detach().softmax(1)

    def cross_entropy(y: torch.Tensor) -> torch.Tensor:
        return -(truth * y.log_softmax(1)).sum(1).mean()

    def divergence(y: torch.Tensor) -> torch.Tensor:
        return (taught * (taught.log() - y.log_softmax(1))).sum(1).mean()

    expected = [cross_entropy(logits[0])]
    expected += [share * cross_entropy(y) + (1 - share) * divergence(y) for y in logits[1:]]
    torch.stack(expected).sum().backward()
    assert losses == pytest.approx([each.item() for each in expected], rel=1e-4)
    for name, each in elastic.largest.named_parameters():
        # float32: both sum the same few thousand products in another order
        torch.testing.assert_close(each.grad, weights[name].grad, rtol=1e-3, atol=1e-6, msg=name)


def test_smaller_networks_leave_no_trace_in_the_largest_ones_statistics(tiny: ModuleType) -> None:
    alone, together = tiny.TinyElastic(), tiny.TinyElastic()
    batch = next(iter(tiny.TinyTask().batches(0)))
    Sandwich(alone, tiny.TinyTask()).backward([tiny.candidate()], batch, seed=0)
    Sandwich(together, tiny.TinyTask()).backward([tiny.candidate(), tiny.candidate(2, 1, False)], batch, seed=0)
    for (name, one), (_, other) in zip(alone.largest.named_buffers(), together.largest.named_buffers(), strict=True):
        assert torch.equal(one, other), name


def test_a_loss_that_is_not_finite_names_its_candidate(tiny: ModuleType) -> None:
    elastic = tiny.TinyElastic()

    class Picky(tiny.TinyTask):
        def distil(self, outputs, teacher):
            return outputs.sum() * float("nan")

    batch = next(iter(tiny.TinyTask().batches(0)))
    with pytest.raises(
        InputError, match=r"the loss of candidate \(width 2, kernel 1, deep False, format int8\) became nan"
    ):
        Sandwich(elastic, Picky()).backward([tiny.candidate(), tiny.candidate(2, 1, False)], batch, seed=0)


def test_networks_that_are_kept_are_no_more_than_so_many(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "REMEMBERED", 2)
    elastic, batch = tiny.TinyElastic(), next(iter(tiny.TinyTask().batches(0)))
    sandwich, built = Sandwich(elastic, tiny.TinyTask()), []
    network = elastic.network
    monkeypatch.setattr(elastic, "network", lambda each: built.append(each.values["width"]) or network(each))
    for width in (2, 4, 4, 8, 8, 2):
        sandwich.backward([tiny.candidate(), tiny.candidate(width, 3, True)], batch, seed=0)
    modules = [each for each, again in zip(built, [None, *built], strict=False) if each != again]
    assert modules == [2, 4, 8, 2]  # the oldest of three was forgotten, and made again
    assert len(sandwich._networks) == 2
