"""The front door: command line, recipes, stages, data sets, networks, reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "bitwright.experiments":
    raise ImportError(
        "import bitwright.experiments, not experiments: "
        "from the checkout's root the same files would become other classes"
    )

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.experiments.recipe import Recipe
    from bitwright.experiments.record import Figure, Record
    from bitwright.experiments.run import run_recipe
    from bitwright.experiments.workbench import Workbench

__all__ = [
    "Figure",
    "Recipe",
    "Record",
    "Workbench",
    "run_recipe",
]
__getattr__ = lazy_attributes(__name__, __file__)
