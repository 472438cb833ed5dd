"""Every extension point of the product: what recipes can name and `bitwright ls` shows."""

from __future__ import annotations

from bitwright.hw_constraints.backends.base import BACKENDS
from bitwright.hw_constraints.fixes.base import FIXES
from bitwright.hw_constraints.lint import RULES
from bitwright.hw_constraints.proof.tools.base import TOOLS
from bitwright.hw_constraints.target_files import TARGETS
from bitwright.nas.spaces import SPACES
from bitwright.quant.export.exporter import EXPORTERS
from bitwright.quant.extension_point import ExtensionPoint
from bitwright.quant.observers import OBSERVERS
from bitwright.quant.preparations import PREPARATIONS
from bitwright.quant.reconstruct import ROUNDINGS

__all__ = [
    "BACKENDS",
    "DATASETS",
    "EXPORTERS",
    "FIXES",
    "MODELS",
    "OBSERVERS",
    "PREPARATIONS",
    "RECIPES",
    "ROUNDINGS",
    "RULES",
    "SPACES",
    "STAGES",
    "TARGETS",
    "TOOLS",
    "ExtensionPoint",
]

DATASETS = ExtensionPoint(
    kind="data set", package="bitwright.experiments.datasets", marker="DATASET", group="bitwright.datasets"
)
MODELS = ExtensionPoint(kind="model", package="bitwright.experiments.models", marker="MODEL", group="bitwright.models")
STAGES = ExtensionPoint(kind="stage", package="bitwright.experiments.stages", marker="STAGE", group="bitwright.stages")
RECIPES = ExtensionPoint(kind="recipe", package="bitwright.recipes", marker=".yaml", group="bitwright.recipes")
