import numpy as np
import pytest
import torch

from bitwright.qat import distillation_loss


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_divergence_of_the_softened_distributions(temperature: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))

    def softened(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits / temperature)
        return powers / powers.sum(1, keepdims=True)

    p, q = softened(teacher), softened(student)
    expected = (p * np.log(p / q)).sum(1).mean() * temperature**2
    found = distillation_loss(torch.from_numpy(student), torch.from_numpy(teacher), temperature=temperature)
    assert float(found) == pytest.approx(expected)


def test_equal_networks_have_nothing_to_learn_and_the_teacher_never_does() -> None:
    student = torch.randn(4, 3, 2, 2, requires_grad=True)
    teacher = student.detach().clone().requires_grad_()
    loss = distillation_loss(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad is not None and student.grad.abs().max() < 1e-6
    assert teacher.grad is None
