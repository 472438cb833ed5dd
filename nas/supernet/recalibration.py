"""Statistics of batch norms, taken anew from a few batches without labels.

A smaller network's activations have other means and variances than those of the network whose weights it uses, so
the statistics noted in training are nobody's (Yu et al. 2019, section 3.2; Yu & Huang 2019, section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from bitwright.nas.supernet.task import Arguments
from bitwright.quant.errors import InputError


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Arguments]) -> None:
    """Sets the statistics of each batch norm to the average over batches, in place; leaves the network in eval mode.

    `running_mean = mean_b E_b[x]`, `running_var = mean_b Var_b[x]` (unbiased, as training notes them), where each
    batch runs as in training: layers behind a batch norm see what it makes with the batch's own statistics. All other
    layers run as in eval mode, so that nothing is drawn by chance. A network without batch norms is not run.

    Args:
        network: any network.
        batches: arguments of its `forward`.

    Raises:
        InputError: there are no batches.
    """
    network.eval()
    norms = [each for each in network.modules() if isinstance(each, _NormBase) and each.running_mean is not None]
    if not norms:
        return
    momenta = [each.momentum for each in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average instead of a moving one
        norm.train()
    seen = False
    try:
        for arguments in batches:
            network(*arguments)
            seen = True
    finally:
        network.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    if not seen:
        raise InputError("batch norms: no batch to take statistics from; give at least one")
