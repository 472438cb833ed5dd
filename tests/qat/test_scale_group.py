"""Scales in an optimizer that is made behind the callback, among the user's own weights."""

import copy

import pytest
import torch
from torch import nn

from bitwright.qat import QATCallback, QATSchedule

from .conftest import batch
from .test_loops import assert_equal, loss_of, state

LATER = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.5),
    "adam_foreach": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, weight_decay=0.5, foreach=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=0.5),
}


@pytest.mark.parametrize("name", LATER)
def test_scales_among_the_users_weights_do_not_decay(everything: nn.Module, name: str) -> None:
    """As the user's own groups would have it: weights decay, scales do not; the optimizer looks as it was made."""
    states, ways = [], (False, True)
    for by_hand in ways:
        torch.manual_seed(0)
        model = copy.deepcopy(everything)
        qat = QATCallback(model, None, target="x86-vnni", calibration=[batch()])
        scales = {id(scale) for scale in model.qat_quantizers.parameters()}
        weights = [each for each in model.parameters() if id(each) not in scales]
        groups = [{"params": weights}, *qat.param_groups()] if by_hand else model.parameters()
        optimizer = LATER[name](groups)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        order = [id(each) for group in optimizer.param_groups for each in group["params"]]
        model.train()
        for seed in range(4):
            loss_of(model, seed).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            assert [id(each) for group in optimizer.param_groups for each in group["params"]] == order
        states.append(state(model))
    assert_equal(*states)


def test_a_rate_of_the_scales_holds_in_an_optimizer_that_is_made_later(everything: nn.Module) -> None:
    qat = QATCallback(everything, None, target="x86-vnni", calibration=[batch()], schedule=QATSchedule(scale_lr=1e-4))
    optimizer = torch.optim.SGD(everything.parameters(), lr=1e-1)
    everything.train()
    loss_of(everything, 0).backward()
    named = dict(qat.replay.parts.quantizers.named())
    gradients = {name: q.log_ratio.grad.clamp(-1, 1) for name, q in named.items() if q.learned}
    optimizer.step()
    for name, gradient in gradients.items():
        torch.testing.assert_close(named[name].log_ratio.detach(), -1e-4 * gradient)
    assert len(optimizer.param_groups) == 1 and optimizer.param_groups[0]["lr"] == 1e-1


def test_a_step_that_fails_leaves_the_users_groups_whole(everything: nn.Module) -> None:
    class Failing(torch.optim.AdamW):
        def step(self, closure: object = None) -> None:
            assert len(self.param_groups) == 2
            raise RuntimeError("out of memory")

    qat = QATCallback(everything, None, target="x86-vnni", calibration=[batch()])
    optimizer = Failing(everything.parameters(), lr=1e-2)
    before = len(optimizer.param_groups[0]["params"])
    everything.train()
    loss_of(everything, 0).backward()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            optimizer.step()
    qat.finish()
    assert [len(group["params"]) for group in optimizer.param_groups] == [before]
