"""Learning from the float network as well as from the labels."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Kullback-Leibler divergence from the teacher's softened distribution (Hinton et al. 2015, section 2).

    `T^2 * mean_n sum_c p_c (log p_c - log q_c)`, `p = softmax(teacher / T)`, `q = softmax(student / T)`; the factor
    keeps the gradient's size independent of T.

    Args:
        student: logits, float [N, C, …]; gradients flow into them.
        teacher: logits of the same shape; taken as constants.
        temperature: above 1, the teacher's small probabilities count more.

    Returns:
        A scalar, averaged over everything but the classes.
    """
    log_q = F.log_softmax(student / temperature, dim=1)
    log_p = F.log_softmax(teacher.detach() / temperature, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return divergence.mean() * temperature**2
