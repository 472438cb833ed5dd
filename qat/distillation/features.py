"""What a layer in the middle computes: the hints of FitNets (Romero et al. 2015, section 2.2)."""

from __future__ import annotations

import torch

# Below it a teacher's feature is dead, and its relative error means nothing.
_DEAD = 1e-12


def feature_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared error in relation to the teacher's own power: `sum (s - t)^2 / sum t^2`, noise over signal.

    So a term is as large for a layer of large values as for one of small ones, and 10 dB of it are 0.1.

    Args:
        student: float, any shape, projected to the teacher's if need be; gradients flow into it.
        teacher: the same shape; taken as a constant.

    Returns:
        A scalar.
    """
    teacher = teacher.detach()
    return (student - teacher).square().sum() / teacher.square().sum().clamp(min=_DEAD)
