"""Where a network looks: attention maps of convolutions, attention matrices of transformers."""

from __future__ import annotations

import torch
from torch.nn import functional as F

# Probabilities below it count as it: their logarithm is asked for.
_SMALLEST = 1e-8


def attention_map_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Distance of the normalised maps of where activations are large.

    Zagoruyko & Komodakis 2017, Paying More Attention to Attention, eq. 2 with p = 2: `Q = vec(sum_c A_c^2)`,
    `|| Q_s / ||Q_s|| - Q_t / ||Q_t|| ||_2`, averaged over samples. Channels may differ in number, so nothing is
    projected; a student of another resolution is resized to the teacher's.

    Args:
        student: float [N, C, ...spatial].
        teacher: float [N, C', ...spatial]; taken as a constant.
    """
    ours, theirs = student.square().mean(1), teacher.detach().square().mean(1)
    if ours.shape != theirs.shape:
        height, width = theirs.shape[1:]
        ours = F.adaptive_avg_pool2d(ours.unsqueeze(1), (height, width)).squeeze(1)
    ours, theirs = (F.normalize(each.flatten(1), dim=1) for each in (ours, theirs))
    distances: torch.Tensor = torch.linalg.vector_norm(ours - theirs, dim=1)
    return distances.mean()


def attention_matrix_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence from the teacher's attention (Wang et al. 2020, MiniLM, eq. 5).

    `mean over samples, heads and queries of sum_k t_k (log t_k - log s_k)`.

    Args:
        student: probabilities, float [..., queries, keys]; heads averaged first where their number differs.
        teacher: likewise; taken as a constant.
    """
    teacher = teacher.detach()
    if student.shape != teacher.shape:
        student, teacher = (each.mean(1) if each.dim() == 4 else each for each in (student, teacher))
    logs = [each.clamp(min=_SMALLEST).log() for each in (teacher, student)]
    return (teacher * (logs[0] - logs[1])).sum(-1).mean()
