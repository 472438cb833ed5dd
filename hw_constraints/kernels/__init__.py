"""Kernels: what a runtime runs as one piece, found in a network's file and made into a model of its own."""

from __future__ import annotations

from bitwright.hw_constraints.kernels.draw import draw_kernels
from bitwright.hw_constraints.kernels.kernel import Family, Kernel
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.kernels.minimal_model import MinimalModel, minimal_model
from bitwright.hw_constraints.kernels.probe import probe_rules
from bitwright.hw_constraints.kernels.rules import FusionRules
from bitwright.hw_constraints.kernels.split import PlacedKernel, Split, split

__all__ = [
    "Family",
    "FusionRules",
    "Kernel",
    "MinimalModel",
    "PlacedKernel",
    "Split",
    "draw_kernels",
    "known_rules",
    "minimal_model",
    "probe_rules",
    "split",
]
