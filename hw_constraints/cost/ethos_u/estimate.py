"""The estimate for a network on an Ethos-U target, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from bitwright.hw_constraints.cost.ethos_u.network import operations_of
from bitwright.hw_constraints.cost.ethos_u.schedule import NetworkCost, cost_of
from bitwright.hw_constraints.cost.ethos_u.systems import system_of
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.graph import Graph


def network_cost(graph: Graph, target: Target, elsewhere: Collection[str] = ()) -> NetworkCost:
    """Cycles, bytes and on-chip memory of an int8 network.

    Args:
        graph: the network, batch of 1, with the values of its weights: their encoded size hangs on them.
        target: with `cost: {model: ethos_u}`.
        elsewhere: names of the nodes that the accelerator does not run.

    Those, and nodes that the model does not know, are listed in `unmodelled` and cost nothing here.

    Raises:
        InputError: the target does not say enough.
    """
    system = system_of(target)
    operations, unmodelled = operations_of(graph, system.configuration, elsewhere)
    return dataclasses.replace(cost_of(operations, system), unmodelled=unmodelled)
