"""Scores of untrained networks that go with how well they train: figures for limits and comparisons, no more than that.

Correlations with trained accuracy differ from space to space (Abdelfattah et al. 2021, arXiv:2101.08134).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from bitwright.quant.errors import InputError

# Modules whose input's sign is a bit of the network's code: rectifiers, and what is shaped like one.
_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.ELU)


@torch.no_grad()
def naswot(model: nn.Module, samples: Iterable[Any]) -> float:
    """How differently an untrained network folds samples: the log determinant of how many rectifier bits they share.

    K[i, j] = bits - Hamming distance of the codes of samples i and j, summed over all rectifiers; the score is
    log |det K| (Mellor et al. 2021, Neural Architecture Search without Training, eq. 2).

    Args:
        model: with fresh weights; its rectifiers are modules.
        samples: arguments of `forward`, one sample each.

    Raises:
        InputError: no rectifier is a module, or there are no samples.
    """
    bits: list[torch.Tensor] = []
    handles = [
        module.register_forward_pre_hook(lambda _, inputs: bits.append((inputs[0] > 0).flatten()))
        for module in model.modules()
        if isinstance(module, _RECTIFIERS)
    ]
    codes = []
    was_training = model.training
    model.eval()
    try:
        for sample in samples:
            bits.clear()
            model(*sample if isinstance(sample, tuple) else (sample,))
            if bits:
                codes.append(torch.cat(bits))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    if not codes:
        raise InputError(
            "naswot reads the signs in front of rectifiers; this network has none as modules "
            f"({', '.join(each.__name__ for each in _RECTIFIERS)}), or there are no samples: take synflow"
        )
    code = torch.stack(codes).double()
    shared = code @ code.T + (1 - code) @ (1 - code).T
    return float(torch.linalg.slogdet(shared).logabsdet)


def synflow(model: nn.Module, example: tuple[Any, ...]) -> float:
    """Logarithm of the sum over parameters of |w dR/dw|, where R is the network's answer to ones with |weights|.

    Synaptic flow (Tanaka et al. 2020, arXiv:2006.05467, eq. 2), summed over the network as a score (Abdelfattah et al.
    2021); in double precision, batch norms with their running statistics.

    Args:
        model: with fresh weights; it is left as it is.
        example: arguments of `forward`; tensors of floats become ones.
    """
    own = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.abs_()
    own.zero_grad()
    outputs = own(*(torch.ones_like(each, dtype=torch.double) if _is_float(each) else each for each in example))
    tensors = [each for each in torch.utils._pytree.tree_leaves(outputs) if _is_float(each)]
    torch.stack([each.sum() for each in tensors]).sum().backward()  # type: ignore[no-untyped-call]
    flows = [(each.detach() * each.grad).abs().sum() for each in own.parameters() if each.grad is not None]
    return float(torch.stack(flows).sum().log())


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
