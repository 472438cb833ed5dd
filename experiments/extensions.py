"""Every extension point of the product: what recipes can name and `bitwright ls` shows."""

from __future__ import annotations

from bitwright.hw_constraints.backends.base import BACKENDS
from bitwright.nas.spaces import SPACES
from bitwright.quant.extension_point import ExtensionPoint
from bitwright.quant.observers import OBSERVERS

__all__ = [
    "BACKENDS",
    "DATASETS",
    "MODELS",
    "OBSERVERS",
    "RECIPES",
    "RULES",
    "SPACES",
    "STAGES",
    "TARGETS",
    "ExtensionPoint",
]

DATASETS = ExtensionPoint(
    kind="data set", package="bitwright.experiments.datasets", marker="DATASET", group="bitwright.datasets"
)
MODELS = ExtensionPoint(kind="model", package="bitwright.experiments.models", marker="MODEL", group="bitwright.models")
STAGES = ExtensionPoint(kind="stage", package="bitwright.experiments.stages", marker="STAGE", group="bitwright.stages")
TARGETS = ExtensionPoint(
    kind="target", package="bitwright.hw_constraints.targets", marker=".yaml", group="bitwright.targets"
)
RULES = ExtensionPoint(kind="rule", package="bitwright.hw_constraints.rules", marker="RULE", group="bitwright.rules")
RECIPES = ExtensionPoint(kind="recipe", package="bitwright.recipes", marker=".yaml", group="bitwright.recipes")
