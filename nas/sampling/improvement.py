"""Expected hypervolume improvement, exact for independent Gaussian objectives, of which some may be certain."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from bitwright.nas.sampling.grid import Floats


def expected_shortfall(level: Floats, mean: Floats, deviation: Floats) -> Floats:
    """E[(level − Y)⁺] of Y ~ N(mean, deviation²): `(l − μ) Φ(z) + σ φ(z)`, z = (l − μ) / σ; (l − μ)⁺ where σ = 0.

    Jones, Schonlau, Welch 1998, Efficient global optimization, equation 15.
    """
    gap, deviation = np.broadcast_arrays(level - mean, deviation)
    spread = np.where(deviation > 0, deviation, 1.0)
    z = np.clip(gap / spread, -38.0, 38.0)  # beyond, φ(z) is no double
    uncertain = gap * ndtr(z) + spread * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.maximum(np.where(deviation > 0, uncertain, gap), 0.0)


def expected_improvement(mean: Floats, deviation: Floats, front: Floats, reference: Floats) -> Floats:
    """By how much each candidate is expected to raise the hypervolume of a front; less is better.

    The region that the front leaves free is cut into boxes along all objectives but the last: in each, the best last
    objective `f` of the front is constant. For independent objectives the expectation of a box's share is a product,

        EHVI = Σ_boxes  Π_j [ψ_j(b_j) − ψ_j(a_j)] · ψ_last(f),   ψ(t) = E[(t − Y)⁺],

    (a box spans a_j … b_j), which also holds for an objective without deviation. Two objectives: strips, as Emmerich,
    Deutz, Klinkenberg 2011, Hypervolume-based expected improvement; one objective: expected improvement.

    Args:
        mean: [candidates, objectives].
        deviation: [candidates, objectives]; 0 where an objective is known.
        front: [points, objectives].
        reference: [objectives]; points beyond it count for nothing.

    Returns:
        [candidates].
    """
    front = front[(front < reference).all(axis=1)]
    objectives = mean.shape[1]
    edges = [np.unique(np.append(front[:, j], reference[j])) for j in range(objectives - 1)]
    best = _best_of_last(front, edges, reference[-1])
    share = expected_shortfall(best.reshape(1, -1), mean[:, -1:], deviation[:, -1:]).reshape(len(mean), *best.shape)
    for j in reversed(range(objectives - 1)):
        at_edge = expected_shortfall(edges[j], mean[:, j : j + 1], deviation[:, j : j + 1])
        width = np.diff(at_edge, axis=1, prepend=0.0)  # the first box begins at −∞, where ψ is 0
        share = np.einsum("n...i,ni->n...", share, width)
    return np.asarray(share, dtype=np.float64)


def _best_of_last(front: Floats, edges: list[Floats], reference: float) -> Floats:
    """The front's best last objective in each box: of the points that reach the whole box."""
    best = np.full([len(each) for each in edges], reference)
    for point in front:
        reached = tuple(
            slice(int(np.searchsorted(each, value)) + 1, None) for each, value in zip(edges, point[:-1], strict=True)
        )
        best[reached] = np.minimum(best[reached], point[-1])
    return best
