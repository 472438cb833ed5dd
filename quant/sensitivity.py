"""How much noise in a tensor moves the network's results: without the Jacobian, by gradients of random projections.

To first order, noise of variance v in one element x moves the results by `v * |dy/dx|^2` in squared length. The sum of
`|dy/dx|^2` over the elements of a channel is what one unit of variance in that channel costs. It is estimated without
the Jacobian: for random signs r, `E |d(r y)/dx|^2 = |dy/dx|^2` (Hutchinson 1990), one backward pass each.

Summed over a whole tensor it is the trace of the Hessian of `|y - y_float|^2 / 2`, which at the float network is
`J^T J` exactly, since the residual is zero there. Weighed with the squared error that rounding makes of each element it
says what the rounding of one tensor does to the results (HAWQ-V2: Dong et al. 2020, with one mean for all elements):
cheap, to first order, and with the errors of different elements taken as independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import TensorRef

Rounding = Callable[[torch.Tensor], torch.Tensor]
Watch = Callable[[TensorRef, torch.Tensor], None]

# Backward passes a sample; the mean over samples and channels evens out what few of them leave.
PROJECTIONS = 2


def channel_sensitivity(
    captured: CapturedModel,
    axes: Mapping[TensorRef, int],
    samples: Iterable[Arguments],
    *,
    projections: int = PROJECTIONS,
    seed: int = 0,
    watch: Watch | None = None,
) -> dict[TensorRef, torch.Tensor]:
    """The cost of unit variance in each channel, the mean over samples.

    Args:
        captured: the network in float.
        axes: which tensors, each with its axis of channels; parameters among them.
        samples: arguments of `forward` at the captured batch size.
        projections: backward passes a sample.
        seed: of the random signs.
        watch: is shown each real tensor of each sample on the way.

    Returns:
        float32 `[C]` by tensor, in squared units of the results for squared units of the tensor; tensors that the
        results do not depend on, or not smoothly, have none.
    """
    sums: dict[TensorRef, torch.Tensor] = {}
    count = 0
    passes = _gradients(captured, axes, samples, projections, seed, watch)
    for count, found in enumerate(passes, start=1):  # noqa: B007
        for ref, _, gradient in found:
            energy = gradient.square().movedim(axes[ref], 0).flatten(1).sum(1)
            sums[ref] = sums[ref] + energy if ref in sums else energy
    return {ref: total / (count * projections) for ref, total in sums.items() if total.isfinite().all()}


def rounding_noise(
    captured: CapturedModel,
    roundings: Mapping[TensorRef, Mapping[str, Rounding]],
    samples: Iterable[Arguments],
    *,
    projections: int = PROJECTIONS,
    seed: int = 0,
) -> dict[tuple[TensorRef, str], float]:
    """What rounding one tensor does to the results, `E Σ_i |dy/dx_i|^2 (Q(x_i) - x_i)^2`, the mean over samples.

    Args:
        captured: the network in float.
        roundings: what may be done to each tensor (`Q`), by a name; parameters among them.
        samples: arguments of `forward` at the captured batch size.
        projections: backward passes a sample.
        seed: of the random signs.

    Returns:
        Squared length of the results' change, by tensor and name; 0 where the results do not follow a tensor smoothly.
    """
    sums = {(ref, name): 0.0 for ref, ways in roundings.items() for name in ways}
    count = 0
    for count, found in enumerate(_gradients(captured, roundings, samples, projections, seed), start=1):  # noqa: B007
        errors: dict[tuple[TensorRef, str], torch.Tensor] = {}
        for ref, tensor, gradient in found:
            for name, rounded in roundings[ref].items():
                if (ref, name) not in errors:
                    errors[ref, name] = rounded(tensor.detach()) - tensor.detach()
                sums[ref, name] += float((gradient * errors[ref, name]).square().sum(dtype=torch.float64))
    return {key: total / (count * projections) for key, total in sums.items()} if count else sums


def _gradients(
    captured: CapturedModel,
    refs: Iterable[TensorRef],
    samples: Iterable[Arguments],
    projections: int,
    seed: int,
    watch: Watch | None = None,
) -> Iterator[Iterator[tuple[TensorRef, torch.Tensor, torch.Tensor]]]:
    """For each sample the tensors with `d(r y)/dx` for random signs r, each tensor once a projection."""
    generator = torch.Generator().manual_seed(seed)
    watched = set(refs)
    parameters = {ref: name for ref, name in captured.value_refs.items() if ref in watched}
    values = {**captured.values, **{n: captured.values[n].detach().requires_grad_(True) for n in parameters.values()}}
    network, state = replace(captured, values=values), captured.initial_state()
    for arguments in samples:
        with torch.enable_grad():
            results, seen = _recorded(network, watched, arguments, state, watch)
        seen.update({ref: values[name] for ref, name in parameters.items()})
        yield _projected(results, seen, projections, generator)


def _projected(
    results: list[torch.Tensor], seen: Mapping[TensorRef, torch.Tensor], projections: int, generator: torch.Generator
) -> Iterator[tuple[TensorRef, torch.Tensor, torch.Tensor]]:
    if not (results and seen):
        return  # results of whole numbers (argmax) do not follow anything smoothly
    for left in reversed(range(projections)):
        with torch.enable_grad():
            total = torch.stack([(_signs(each, generator) * each).sum() for each in results]).sum()
        found = torch.autograd.grad(total, list(seen.values()), retain_graph=left > 0, allow_unused=True)
        for (ref, tensor), gradient in zip(seen.items(), found, strict=True):
            if gradient is not None:
                yield ref, tensor, gradient


def _recorded(
    captured: CapturedModel,
    refs: Iterable[TensorRef],
    arguments: Arguments,
    state: dict[str, torch.Tensor],
    watch: Watch | None,
) -> tuple[list[torch.Tensor], dict[TensorRef, torch.Tensor]]:
    """The results, and the tensors on the way that they depend on; the state goes on to the next sample."""
    wanted = set(refs)
    watched: dict[TensorRef, torch.Tensor] = {}

    def record(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        if watch is not None:
            watch(ref, tensor.detach())
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_(True)
        if ref in wanted:
            watched[ref] = tensor
        return tensor

    results = captured.outputs(captured.execute(*arguments, state=state, transform=record))
    state.update({name: value.detach() for name, value in state.items()})
    return [each for each in results if each.requires_grad], watched


def _signs(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype) * 2 - 1
