"""Search: which network, in which formats, is best on an accelerator.

Importing this package loads neither torch nor optuna; what needs them is imported when it is first asked for. The
function named like its module is imported from there: `from bitwright.nas.search import search`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "bitwright.nas":
    raise ImportError(
        "import bitwright.nas, not nas: from the checkout's root the same files would become other classes"
    )

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.nas.elastic.built import BuiltElastic
    from bitwright.nas.elastic.decisions import Shrinkage
    from bitwright.nas.elastic.elastic import Elastic, inherit, shared_state
    from bitwright.nas.elastic.elasticize import elasticize
    from bitwright.nas.objective import evaluate
    from bitwright.nas.pareto import hypervolume, non_dominated
    from bitwright.nas.result import Outcome, Result
    from bitwright.nas.review import write_review
    from bitwright.nas.search_outcome import SearchOutcome, Told
    from bitwright.nas.settings import SearchSettings
    from bitwright.nas.setup import Setup
    from bitwright.nas.space import Candidate, Parameter, SearchSpace
    from bitwright.nas.spaces import load_space, space_names
    from bitwright.nas.workload import Workload

__all__ = [
    "BuiltElastic",
    "Candidate",
    "Elastic",
    "Outcome",
    "Parameter",
    "Result",
    "SearchOutcome",
    "SearchSettings",
    "SearchSpace",
    "Setup",
    "Shrinkage",
    "Told",
    "Workload",
    "elasticize",
    "evaluate",
    "hypervolume",
    "inherit",
    "load_space",
    "non_dominated",
    "shared_state",
    "space_names",
    "write_review",
]
__getattr__ = lazy_attributes(__name__, __file__)
