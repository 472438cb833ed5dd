"""The paper's algorithms, weight by weight in plain Python and NumPy, beside the tensors'."""

import numpy as np
import pytest
import torch

from bitwright.qat.oscillation import Oscillation, codes_of, dampening_gradient, gradient_factor
from bitwright.quant.learned_steps import Grid

GRID = Grid(-8.0, 7.0)


def paper_follow(history: np.ndarray, momentum: float, threshold: float) -> tuple[np.ndarray, list[int | None]]:
    """Algorithm 1 of Nagel et al. 2022 for codes [steps, weights]: the frequencies, and the code each freezes at."""
    steps, weights = history.shape
    frequencies = np.zeros((steps, weights), np.float32)
    frozen: list[int | None] = [None] * weights
    for weight in range(weights):
        before, direction = history[0, weight], 0
        frequency, average = np.float32(0), np.float32(history[0, weight])
        for step in range(1, steps):
            code = history[step, weight] if frozen[weight] is None else frozen[weight]
            change = int(np.sign(code - before))
            turns = change != 0 and direction != 0 and change != direction
            frequency = np.float32(momentum * turns + (1 - momentum) * frequency)
            average = np.float32(momentum * code + (1 - momentum) * average)
            direction, before = (change or direction), code
            frequencies[step, weight] = frequency
            if frozen[weight] is None and frequency > threshold:
                frozen[weight] = before = int(np.rint(average))
    return frequencies, frozen


def test_frequencies_and_frozen_codes_are_the_papers() -> None:
    rng = np.random.default_rng(0)
    # The later a weight, the more rarely it moves at all; only the first ones turn back often enough.
    history = rng.integers(-1, 2, (200, 64)) * (rng.random((200, 64)) > np.arange(64) / 40)
    history[:, 40:] = rng.integers(0, 2, (200, 24))
    history[:, 40:] = np.cumsum(np.abs(history[:, 40:]), 0)  # these only ever grow
    frequencies, frozen = paper_follow(history, 0.05, 0.4)
    seen = Oscillation.start(torch.from_numpy(history[0]).float())
    for step in range(1, len(history)):
        codes = torch.from_numpy(history[step]).float()
        seen.follow(torch.where(seen.frozen, seen.codes, codes), 0.05)
        np.testing.assert_allclose(seen.frequency.numpy(), frequencies[step], atol=1e-6)
        seen.freeze(0.4)
    assert seen.frozen.tolist() == [code is not None for code in frozen]
    assert 5 < int(seen.frozen.sum()) < 40 and not seen.frozen[40:].any()
    for weight in np.flatnonzero(seen.frozen.numpy()):
        assert seen.codes[weight].item() == frozen[weight]


def test_a_weight_that_turns_back_every_step_counts_fully() -> None:
    seen = Oscillation.start(torch.zeros(2))
    for step in range(400):
        seen.follow(torch.tensor([float(step % 2), 0.0]), 0.05)
    assert seen.frequency[0].item() == pytest.approx(1.0, abs=1e-3) and seen.frequency[1].item() == 0.0
    assert seen.share(0.5) == 0.5


def test_the_pull_to_the_middle_is_the_gradient_of_the_papers_loss() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5, dtype=torch.float64) * 3
    divisor = torch.rand(6, 1, dtype=torch.float64) * 0.5 + 0.1
    weight[0, 0] = divisor[0, 0] * 30  # clipped: it cannot oscillate
    leaf = weight.clone().requires_grad_(True)
    target = (weight / divisor).round().clamp(GRID.low, GRID.high) * divisor
    clipped = torch.minimum(torch.maximum(leaf, GRID.low * divisor), GRID.high * divisor)
    (target - clipped).square().sum().backward()
    torch.testing.assert_close(dampening_gradient(weight, divisor, GRID), leaf.grad)
    assert leaf.grad is not None and leaf.grad[0, 0] == 0 and (leaf.grad != 0).sum() > 15


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["plain", "turned_by_a_negative_factor"])
def test_scaled_gradients_follow_the_equation_in_codes(sign: float) -> None:
    divisor = torch.tensor([[0.5 * sign], [0.25 * sign]])
    weight, gradient = torch.tensor([[0.6, -0.1], [0.3, 0.26]]), torch.tensor([[1.0, -2.0], [-3.0, 0.0]])
    scaled = weight.numpy() / divisor.numpy()
    by_code = gradient.numpy() * divisor.numpy()  # dL/dv, as the paper has it
    wanted = by_code * (1 + 0.2 * np.sign(by_code) * (scaled - np.rint(scaled)))
    found = gradient * gradient_factor(gradient, weight, divisor, GRID, 0.2)
    np.testing.assert_allclose(found.numpy() * divisor.numpy(), wanted, rtol=1e-5)


def test_codes_are_clamped() -> None:
    weight = torch.tensor([10.0, -10.0, 0.74])
    assert codes_of(weight, torch.tensor(0.5), GRID).tolist() == [7.0, -8.0, 1.0]
