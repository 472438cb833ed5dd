"""What a forest of regression trees believes, and how firmly: the predictor behind the sampling, quick to fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitwright.hw_constraints.kernels.kernel import Family, Kernel
from bitwright.hw_constraints.table.row import KernelRow
from bitwright.hw_constraints.table.sampling import Belief, Floats, shape_vector

_TREES = 60
_LEAST_RATIO = 2e-3  # in units of the reference kernel's time: below, a kernel is lost in any network


def forest_belief(rows: Sequence[KernelRow]) -> Belief:
    """Mean and standard deviation, over the trees, of the logarithm of the latency.

    Trees grown with random thresholds differ where data is thin. Geurts, Ernst, Wehenkel, "Extremely randomized trees",
    Machine Learning 63 (2006).
    """
    from sklearn.ensemble import ExtraTreesRegressor

    known = [row for row in rows if not row.rejected]
    if not known:
        return lambda kernels: (np.zeros(len(kernels)), np.ones(len(kernels)))
    forest = ExtraTreesRegressor(n_estimators=_TREES, bootstrap=True, random_state=0, n_jobs=1)
    target = np.log([max(row.ratio, _LEAST_RATIO) for row in known])
    forest.fit(_features([row.kernel for row in known]), target)

    def belief(kernels: Sequence[Kernel]) -> tuple[Floats, Floats]:
        features = _features(kernels)
        each = np.stack([tree.predict(features) for tree in forest.estimators_])
        return each.mean(axis=0), each.std(axis=0)

    return belief


def _features(kernels: Sequence[Kernel]) -> Floats:
    families = list(Family)
    rows = []
    for kernel in kernels:
        kind = np.zeros(len(families))
        kind[families.index(kernel.family)] = 1.0
        rows.append(np.concatenate([shape_vector(kernel), kind, [kernel.format == "int8", kernel.layout != "plain"]]))
    return np.stack(rows)
