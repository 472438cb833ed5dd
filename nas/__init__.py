"""Search: which network, in which formats, is best on an accelerator.

Importing this package loads neither torch nor optuna; what needs them is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "bitwright.nas":
    raise ImportError(
        "import bitwright.nas, not nas: from the checkout's root the same files would become other classes"
    )

if TYPE_CHECKING:
    from bitwright.nas.objective import evaluate
    from bitwright.nas.pareto import hypervolume, non_dominated
    from bitwright.nas.result import Outcome, Result
    from bitwright.nas.review import write_review
    from bitwright.nas.search import SearchOutcome, SearchSettings, Told, search
    from bitwright.nas.setup import Setup
    from bitwright.nas.space import Candidate, Parameter, SearchSpace
    from bitwright.nas.spaces import load_space, space_names
    from bitwright.nas.workload import Workload

__all__ = [
    "Candidate",
    "Outcome",
    "Parameter",
    "Result",
    "SearchOutcome",
    "SearchSettings",
    "SearchSpace",
    "Setup",
    "Told",
    "Workload",
    "evaluate",
    "hypervolume",
    "load_space",
    "non_dominated",
    "search",
    "space_names",
    "write_review",
]

_HOMES = {
    "objective": ("evaluate",),
    "pareto": ("hypervolume", "non_dominated"),
    "result": ("Outcome", "Result"),
    "review": ("write_review",),
    "search": ("SearchOutcome", "SearchSettings", "Told", "search"),
    "setup": ("Setup",),
    "space": ("Candidate", "Parameter", "SearchSpace"),
    "spaces": ("load_space", "space_names"),
    "workload": ("Workload",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"bitwright.nas.{module}"), name)
    raise AttributeError(f"module 'bitwright.nas' has no attribute {name!r}")
