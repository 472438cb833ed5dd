"""Which samples calibrate, when there are more than one wants to use: those that together show most of what all show.

One forward a sample gathers, for every tensor whose range is chosen from data, its two extremes and a coarse histogram.
Then samples are taken one by one, each time the one that adds most to

    f(S) = mean over i of max over j in S of similarity(i, j)           every sample has one like it (facility location)
         + mean over tensors of what S reaches of the extremes of all   nothing is larger than what was seen
         + the share of the user's slices that S has a sample of

All three are monotone and submodular, so the greedy choice reaches at least 1 - 1/e of the best f (Nemhauser, Wolsey &
Fisher 1978). Where samples carry slices (night, rain, a rare class), each slice counts as much as any other in the
first term, however few samples it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from bitwright.quant.calibrate import Arguments, Progress, split_batch
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import TensorRef
from bitwright.quant.inference import ready_to_run
from bitwright.quant.observers.extremes import in_memory_order

# Powers of two that a histogram tells apart, for each sign; smaller magnitudes share the first bin, larger the last.
_EXPONENTS = range(-12, 12)
_VALUES = 1 << 12  # of each tensor, evenly spaced: enough for shares of a bin to within 1 %


@dataclass(frozen=True)
class Traits:
    """What each sample shows.

    Attributes:
        extremes: how far below and above zero each tensor reaches, `[N, 2 T]`, not negative.
        histograms: shares of magnitudes by powers of two, `[N, T, bins]`.
    """

    extremes: torch.Tensor
    histograms: torch.Tensor


@torch.no_grad()
def traits_of(
    captured: CapturedModel,
    refs: Collection[TensorRef],
    samples: Iterable[Arguments],
    *,
    progress: Progress | None = None,
) -> Traits:
    """One forward a sample; what is kept of it does not grow with the tensors' sizes.

    Args:
        captured: the network in float.
        refs: tensors whose ranges are chosen from data.
        samples: arguments of `forward`, one sample each; state starts anew for each.
        progress: called with the number of samples done.
    """
    order = {ref: place for place, ref in enumerate(refs)}
    running = ready_to_run(captured, order)
    extremes: list[torch.Tensor] = []
    histograms: list[torch.Tensor] = []
    for done, sample in enumerate(samples, start=1):
        reached, shares = torch.zeros(len(order), 2), torch.zeros(len(order), 2 * len(_EXPONENTS))

        def note(
            ref: TensorRef,
            values: torch.Tensor,
            reached: torch.Tensor = reached,
            shares: torch.Tensor = shares,
        ) -> torch.Tensor:
            place = order.get(ref)
            if place is not None and values.numel():
                low, high = torch.aminmax(values)
                reached[place] = torch.maximum(reached[place], torch.stack([-low, high]))
                shares[place] = _magnitudes(values)
            return values

        for arguments in split_batch(captured, captured.arguments(sample)):
            running.run(*arguments, state=captured.initial_state(), transform=note)
        extremes.append(reached.flatten())
        histograms.append(shares)
        if progress:
            progress(done)
    return Traits(torch.stack(extremes), torch.stack(histograms))


def _magnitudes(values: torch.Tensor) -> torch.Tensor:
    """The share of values in each power of two, negative and positive apart."""
    flat = in_memory_order(values.detach())
    flat = flat[:: max(1, flat.numel() // _VALUES)].float()
    exponents = torch.where(flat == 0, _EXPONENTS.start, torch.frexp(flat).exponent)
    places = exponents.clamp(_EXPONENTS.start, _EXPONENTS.stop - 1).long() - _EXPONENTS.start
    bins = places + len(_EXPONENTS) * (flat > 0)
    return torch.bincount(bins, minlength=2 * len(_EXPONENTS)) / flat.numel()


def choose_samples(traits: Traits, count: int, slices: Sequence[str] | None = None) -> list[int]:
    """The places of the samples that together show most, in the order in which they were taken.

    Args:
        traits: of all candidates.
        count: how many to choose; all when there are no more.
        slices: the slice of each candidate.
    """
    candidates = len(traits.extremes)
    alike = _similarity(traits.histograms)
    weights = _balanced(slices, candidates)
    most = traits.extremes.amax(0)
    reach = traits.extremes[:, most > 0].double() / most[most > 0]
    slice_of = slices or ["all"] * candidates
    covered, reached = torch.zeros(candidates, dtype=torch.float64), torch.zeros(reach.shape[1], dtype=torch.float64)
    chosen: list[int] = []
    seen: set[str] = set()
    for _ in range(min(count, candidates)):
        gain = (torch.maximum(alike, covered[:, None]) - covered[:, None]).T @ weights
        gain += (torch.maximum(reach, reached) - reached).sum(1) / max(1, len(reached))
        gain += torch.tensor([each not in seen for each in slice_of]) / len(set(slice_of))
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        seen.add(slice_of[best])
        covered, reached = torch.maximum(covered, alike[:, best]), torch.maximum(reached, reach[best])
    return chosen


def _similarity(histograms: torch.Tensor) -> torch.Tensor:
    """`[N, N]`, 0 to 1: the mean over tensors of the overlap of two samples' histograms, `Σ sqrt(p q)`."""
    roots = histograms.double().sqrt().flatten(1)
    return (roots @ roots.T) / max(1, histograms.shape[1])


def _balanced(slices: Sequence[str] | None, candidates: int) -> torch.Tensor:
    """What each sample counts: all slices the same together, and the samples of a slice the same; sums to 1."""
    if not slices:
        return torch.full((candidates,), 1.0 / candidates, dtype=torch.float64)
    sizes = {name: slices.count(name) for name in set(slices)}
    return torch.tensor([1.0 / (len(sizes) * sizes[name]) for name in slices], dtype=torch.float64)
