"""Proof of execution: what a runtime really runs in low precision, layer by layer, and why not where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.hw_constraints.proof.elsewhere import prove_from
    from bitwright.hw_constraints.proof.probe import Reason
    from bitwright.hw_constraints.proof.proving import prove
    from bitwright.hw_constraints.proof.report import LayerProof, ProofReport, State, format_table
    from bitwright.hw_constraints.proof.saturation import SaturationRisk, describe_risks, saturation_risk

__all__ = [
    "LayerProof",
    "ProofReport",
    "Reason",
    "SaturationRisk",
    "State",
    "describe_risks",
    "format_table",
    "prove",
    "prove_from",
    "saturation_risk",
]
__getattr__ = lazy_attributes(__name__, __file__)
