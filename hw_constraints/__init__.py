"""Targets, the linter, runtimes, proof of execution, measurement and the verdict.

The functions named like their modules are imported from there: `from bitwright.hw_constraints.lint import lint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "bitwright.hw_constraints":
    raise ImportError(
        "import bitwright.hw_constraints, not hw_constraints: "
        "from the checkout's root the same files would become other classes"
    )

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.hw_constraints.backends import Backend, Session, get_backend, list_backends
    from bitwright.hw_constraints.figures import Figures
    from bitwright.hw_constraints.finding import Finding, Severity
    from bitwright.hw_constraints.finding_text import format_findings
    from bitwright.hw_constraints.fix import AppliedFix, FixedModel, RefusedFix
    from bitwright.hw_constraints.machine import Machine, this_machine
    from bitwright.hw_constraints.measure import (
        Latency,
        Measurement,
        Ratio,
        interleave,
        measure_files,
        measure_in_subprocess,
    )
    from bitwright.hw_constraints.measure.regression import Regression, compare_files
    from bitwright.hw_constraints.profile.layers import profile_file, profile_from
    from bitwright.hw_constraints.profile.report import NetworkProfile
    from bitwright.hw_constraints.proof import LayerProof, ProofReport, State, prove, prove_from, saturation_risk
    from bitwright.hw_constraints.target import Capability, Target, list_targets, load_target
    from bitwright.hw_constraints.verdict import Verdict, judge

__all__ = [
    "AppliedFix",
    "Backend",
    "Capability",
    "Figures",
    "Finding",
    "FixedModel",
    "Latency",
    "LayerProof",
    "Machine",
    "Measurement",
    "NetworkProfile",
    "ProofReport",
    "Ratio",
    "RefusedFix",
    "Regression",
    "Session",
    "Severity",
    "State",
    "Target",
    "Verdict",
    "compare_files",
    "format_findings",
    "get_backend",
    "interleave",
    "judge",
    "list_backends",
    "list_targets",
    "load_target",
    "measure_files",
    "measure_in_subprocess",
    "profile_file",
    "profile_from",
    "prove",
    "prove_from",
    "saturation_risk",
    "this_machine",
]
__getattr__ = lazy_attributes(__name__, __file__)
