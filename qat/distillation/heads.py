"""Outputs of dense heads: maps of classes of segmentation, scores and boxes of detection."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def channel_map_loss(student: torch.Tensor, teacher: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Where each class is seen in a picture.

    Shu et al. 2021, Channel-wise Knowledge Distillation for Dense Prediction, eq. 4 and 5: softmax over positions in
    each channel, `T^2 / C * sum_c sum_i p_ci log(p_ci / q_ci)`, averaged over samples.

    Args:
        student: logits, float [N, C, ...spatial].
        teacher: the same shape; taken as a constant.
        temperature: above 1, more of a map counts than its peak.
    """
    log_q = F.log_softmax(student.flatten(2) / temperature, dim=2)
    log_p = F.log_softmax(teacher.detach().flatten(2) / temperature, dim=2)
    return (log_p.exp() * (log_p - log_q)).sum(2).mean() * temperature**2


def score_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Independent scores of classes at many places, few of which hold anything.

    Binary cross-entropy with the teacher's probability, weighed by how far both are apart (Li et al. 2020, Generalized
    Focal Loss, eq. 3 with beta = 2), over the sum of the teacher's probabilities: places where both see nothing, which
    are most, count nothing.

    Args:
        student: logits, float of any shape.
        teacher: the same shape; taken as a constant.
    """
    wanted = teacher.detach().sigmoid()
    apart = (student.sigmoid() - wanted).square().detach()
    error = F.binary_cross_entropy_with_logits(student, wanted, reduction="none")
    # Cross-entropy of equal probabilities is their entropy, not 0; what is left above it is the divergence.
    floor = F.binary_cross_entropy(wanted, wanted, reduction="none")
    return (apart * (error - floor)).sum() / wanted.sum().clamp(min=1.0)


def box_loss(student: torch.Tensor, teacher: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
    """Boxes where the teacher is sure that there is something.

    `sum_i w_i |s_i - t_i|_1 / (4 sum_i w_i)` with the smooth L1 of Girshick 2015 (Fast R-CNN, eq. 3).

    Args:
        student: float [N, 4, ...places], in whichever coordinates.
        teacher: the same shape; taken as a constant.
        confidence: of the teacher, float [N, ...places], from 0 to 1.
    """
    weight = confidence.detach().unsqueeze(1)
    distance = F.smooth_l1_loss(student, teacher.detach(), reduction="none")
    return (weight * distance).sum() / (student.shape[1] * weight.sum()).clamp(min=1e-6)
