"""Many samples side by side give what one run after the other gives."""

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.graph import TensorRef
from bitwright.quant.reconstruct.walk import Walk, incoming_states


class Branched(nn.Module):
    """A skip connection, a split, and a buffer that the forward mutates."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.register_buffer("past", torch.zeros(1, 4, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        left, _ = x.chunk(2, 1)
        x = x + self.second(left) + self.past
        self.past = x * 0.5
        return x.mean((2, 3))


@pytest.mark.parametrize("limit", [1 << 20, 0, 2000], ids=["in memory", "on disk", "both"])
def test_every_tensor_is_that_of_a_run(limit: int) -> None:
    torch.manual_seed(0)
    captured = capture(Branched().eval(), (torch.zeros(1, 3, 6, 6),))
    samples = [(torch.randn(1, 3, 6, 6),) for _ in range(5)]
    expected: list[dict[TensorRef, torch.Tensor]] = []
    state = captured.initial_state()
    for arguments in samples:
        seen: dict[TensorRef, torch.Tensor] = {}
        captured.run(*arguments, state=state, transform=lambda ref, x, seen=seen: seen.setdefault(ref, x))
        expected.append(seen)

    found: list[dict[TensorRef, torch.Tensor]] = [{} for _ in samples]
    at = [0]

    def note(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        found[at[0]][ref] = tensor
        return tensor

    walk = Walk(captured, samples, transform=note, states=incoming_states(captured, samples), limit=limit)
    for stop in range(2, len(captured.steps) + 1, 3):
        at[0] = 0
        for _ in walk.advance(stop):
            at[0] += 1
    at[0] = 0
    for _ in walk.advance(len(captured.steps)):
        at[0] += 1
    for one, other in zip(expected, found, strict=True):
        kept = {ref: tensor for ref, tensor in one.items() if ref in other}
        assert kept.keys() == other.keys()
        assert all(torch.equal(tensor, other[ref]) for ref, tensor in kept.items())
        assert len(other) >= len(one) - 1  # incoming state passes the transform of a run alone


def test_samples_that_wait_and_forks_see_the_same_tensors() -> None:
    torch.manual_seed(0)
    captured = capture(Branched().eval(), (torch.zeros(1, 3, 6, 6),))
    samples = [(torch.randn(1, 3, 6, 6),) for _ in range(4)]
    states = incoming_states(captured, samples)
    end = len(captured.steps)

    def results(walk: Walk) -> list[torch.Tensor]:
        return [environment[captured.steps[-1][0]].clone() for environment in walk.advance(end)]

    expected = results(Walk(captured, samples, states=states))
    walk = Walk(captured, samples, states=states, limit=700)  # of the four, one stays in memory
    for stop, first in ((end // 2, 2), (end - 2, 3)):
        assert sum(1 for _ in walk.advance(stop, first)) == first
    fork = walk.fork()
    for found in (results(fork), results(walk)):
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
