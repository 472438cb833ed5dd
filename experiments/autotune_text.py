"""What a search for the places of Q/DQ came to, for people."""

from __future__ import annotations

from bitwright.experiments.tables import print_table
from bitwright.hw_constraints.autotune import Fidelity, Tuned


def print_tuned(tuned: Tuned) -> None:
    """Times, closeness to the float network, and where the file is."""
    rows = [(name, f"{time / 1e3:.3f} ms", _against(tuned, name)) for name, time in tuned.median_us.items()]
    print_table(("network", "median", f"time of the artefact ({tuned.choice}) in relation to it"), rows)
    for name, fidelity in tuned.fidelity.items():
        print(f"{name}: {_closeness(fidelity)}, on samples that the search has not seen")
    ours = f"{len(tuned.floats)} of {tuned.sites} sites in float; " if tuned.decision else ""
    print(f"{ours}{tuned.tries} files tried, {tuned.steps} steps forward")
    if tuned.why:
        print(tuned.why)
    print(tuned.file)


def _against(tuned: Tuned, name: str) -> str:
    ratio = tuned.against.get(name)
    return "–" if ratio is None or name == tuned.choice else str(ratio)


def _closeness(fidelity: Fidelity) -> str:
    sqnr = f"SQNR {fidelity.mean_sqnr_db:.1f} dB to the float network"
    agreement = fidelity.agreement_percent
    return sqnr if agreement is None else f"decides alike on {agreement:.2f} %, {sqnr}"
