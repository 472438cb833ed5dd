"""How much noise in each channel of a tensor moves the network's results.

To first order, noise of variance v in one element x moves the results by `v * |dy/dx|^2` in squared length. The sum of
`|dy/dx|^2` over the elements of a channel is what one unit of variance in that channel costs. It is estimated without
the Jacobian: for random signs r, `E |d(r y)/dx|^2 = |dy/dx|^2` (Hutchinson 1990), one backward pass each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import TensorRef

# Backward passes a sample; the mean over samples and channels evens out what few of them leave.
PROJECTIONS = 2


def channel_sensitivity(
    captured: CapturedModel,
    axes: Mapping[TensorRef, int],
    samples: Iterable[Arguments],
    *,
    projections: int = PROJECTIONS,
    seed: int = 0,
) -> dict[TensorRef, torch.Tensor]:
    """The cost of unit variance in each channel, the mean over samples.

    Args:
        captured: the network in float.
        axes: which tensors, each with its axis of channels.
        samples: arguments of `forward` at the captured batch size.
        projections: backward passes a sample.
        seed: of the random signs.

    Returns:
        float32 `[C]` by tensor, in squared units of the results for squared units of the tensor; tensors that the
        results do not depend on, or not smoothly, have none.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[TensorRef, torch.Tensor] = {}
    count = 0
    for count, arguments in enumerate(samples, start=1):  # noqa: B007 - the count is used after the loop
        with torch.enable_grad():
            results, watched = _recorded(captured, axes, arguments)
            if not (results and watched):
                continue  # results of whole numbers (argmax) do not follow anything smoothly
            for left in reversed(range(projections)):
                total = torch.stack([(_signs(each, generator) * each).sum() for each in results]).sum()
                found = torch.autograd.grad(total, list(watched.values()), retain_graph=left > 0, allow_unused=True)
                for ref, gradient in zip(watched, found, strict=True):
                    if gradient is not None:
                        energy = gradient.square().movedim(axes[ref], 0).flatten(1).sum(1)
                        sums[ref] = sums[ref] + energy if ref in sums else energy
    return {ref: total / (count * projections) for ref, total in sums.items() if total.isfinite().all()}


def _recorded(
    captured: CapturedModel, axes: Mapping[TensorRef, int], arguments: Arguments
) -> tuple[list[torch.Tensor], dict[TensorRef, torch.Tensor]]:
    """The results, and the tensors on the way that they depend on."""
    watched: dict[TensorRef, torch.Tensor] = {}

    def watch(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_(True)
        if ref in axes:
            watched[ref] = tensor
        return tensor

    results = captured.outputs(captured.execute(*arguments, transform=watch))
    return [each for each in results if each.requires_grad], watched


def _signs(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype) * 2 - 1
