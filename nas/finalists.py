"""What a candidate is outside of its search: arguments of the network's builder, and exceptions to the target's scheme.

With these anybody can build, train, quantize and export it from scratch. Whether what was built is what the search
scored is told by the hash of the network with its formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitwright.nas.block_formats import apply_block_formats
from bitwright.nas.space import Candidate, SearchSpace, Value, hash_of
from bitwright.nas.workload import Workload
from bitwright.quant.scheme import Override, QuantScheme

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class StandAlone:
    """What a candidate is when nothing of its search is there.

    Attributes:
        architecture: arguments of the network's builder.
        overrides: what is added behind the workload's own scheme.
    """

    architecture: Mapping[str, Value]
    overrides: tuple[Override, ...]


def standing_alone(candidate: Candidate, space: SearchSpace, workload: Workload) -> StandAlone:
    """What has to be said about a candidate so that it can be made again.

    Raises:
        InputError: the network's builder does not take the architecture, or the network has no such blocks.
    """
    architecture = space.architecture(candidate)
    formats = space.formats(candidate, workload.build(architecture))
    scheme = apply_block_formats(workload.scheme, workload.target, formats)
    return StandAlone(architecture=architecture, overrides=scheme.overrides[len(workload.scheme.overrides) :])


def patterns_of(candidate: Candidate, space: SearchSpace, workload: Workload) -> Mapping[str, str]:
    """Patterns of zeros of a candidate, by block; dense blocks have none."""
    choose = getattr(space, "sparsity", None)
    return {} if choose is None else dict(choose(candidate, workload.build(space.architecture(candidate))))


def hash_on_targets(hashes: Sequence[str], sparsity: Mapping[str, str]) -> str:
    """The hash of a network on all targets of a search, from that on each and its zeros, as the objective takes it."""
    sparse = [sorted(sparsity.items())] if sparsity else []
    return hashes[0] if len(hashes) == 1 and not sparse else hash_of([*hashes, *sparse])


def hash_of_network(model: torch.nn.Module, example: tuple[Any, ...], scheme: QuantScheme) -> str:
    """The hash of a network with its formats, as the objective takes it of every candidate.

    Raises:
        CaptureError: the network cannot be captured.
    """
    from bitwright.nas.fingerprint import network_hash
    from bitwright.nas.trained_graph import trained_graph
    from bitwright.quant.plan import plan

    graph = trained_graph(model, example)
    return network_hash(graph, plan(graph, scheme))
