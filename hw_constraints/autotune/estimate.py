"""A first guess at each decision's time, from two profiles: float and full int8, site by site.

What a conversion between int8 and float costs depends on what the runtime fuses it into, so its price per element is
left open. At a given price the best assignment of sites to int8 and float is a minimum cut of a graph (each site is
tied to the side that suits it by its time, neighbours are tied to each other by the elements that would be converted),
and every price gives one. The search measures these few instead of the 2^n there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bitwright.hw_constraints.autotune.sites import Sites
from bitwright.hw_constraints.backends import Arrays, get_backend
from bitwright.hw_constraints.proof.onnx_graph import read_onnx
from bitwright.hw_constraints.proof.trace import trace_layers
from bitwright.quant.export.onnx_builder import value_name

_CAPACITIES = 100_000_000  # of all costs together: scipy's flows are 32-bit integers
_HALVINGS = 16  # of the price: down to where converting a middling tensor costs nothing beside any site


def site_times(sites: Sites, file: Path, runtime: str, inputs: Arrays, *, threads: int, runs: int) -> dict[str, float]:
    """Microseconds of each site's own kernels in a file, its tail included; by the runtime's profiler."""
    graph = read_onnx(file)
    trace = trace_layers(graph, get_backend(runtime), inputs, threads=threads, runs=runs)
    makers = {value_name(ref): node.name for node in sites.graph.nodes for ref in node.outputs}
    times = dict.fromkeys(sites.by_name, 0.0)
    for index, layer in trace.layers.items():
        site = sites.of_node.get(_maker(makers, graph.nodes[index].output[0]))
        if site is not None:
            times[site] += layer.time_us
    return times


def _maker(makers: Mapping[str, str], value: str) -> str:
    """The node of the network that an ONNX value comes from; inner values carry its name and a suffix."""
    while value not in makers and "/" in value:
        value = value.rpartition("/")[0]
    return makers.get(value, "")


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """Times of sites in both formats.

    Attributes:
        sites: the network's choices.
        float_us: of each site in float.
        int8_us: of each site in int8.
    """

    sites: Sites
    float_us: Mapping[str, float]
    int8_us: Mapping[str, float]

    def total_us(self, floats: frozenset[str], price: float) -> float:
        """Sites and conversions together.

        Args:
            floats: sites in float.
            price: of a conversion, microseconds an element.
        """
        time = sum(
            self.float_us[name] if name in floats else self._coded_us(name, price) for name in self.sites.by_name
        )
        crossing = sum(n for (a, b), n in self.sites.edges.items() if (a in floats) != (b in floats))
        return time + price * crossing

    def _coded_us(self, name: str, price: float) -> float:
        """A site in int8, with the conversions that float operators around it need in any case."""
        return self.int8_us[name] + price * self._converted[name]

    @cached_property
    def _converted(self) -> dict[str, int]:
        counts = dict.fromkeys(self.sites.by_name, 0)
        for (writer, reader), count in self.sites.float_edges.items():
            counts[writer] += count
            counts[reader] += count
        return counts

    def prices(self) -> list[float]:
        """From the price at which converting one middling tensor costs more than all sites, downwards by halves."""
        everything = sum(self.float_us.values()) + sum(self.int8_us.values())
        typical = float(np.median([site.elements for site in self.sites.by_name.values()]))
        highest = everything / max(1.0, typical)
        return [highest / 2**step for step in range(_HALVINGS)]

    def assignments(self) -> dict[frozenset[str], float]:
        """Sites in float for each price, each assignment once with the highest price it is best at."""
        found: dict[frozenset[str], float] = {}
        for price in self.prices():
            found.setdefault(self.cut(price), price)
        return found

    def learnt_price(self, ratios: Mapping[frozenset[str], float]) -> float:
        """The price that explains measured times best.

        Of the model `ratio * unit = sites + price * converted`, with the unit and the price unknown: least squares in
        relation to the ratio. A price below those that are tried becomes the least of them.

        Args:
            ratios: measured time of assignments (sites in float), in relation to a common reference.
        """
        lowest, *_ = sorted(self.prices())
        if len(ratios) < 3:
            return float(np.median(self.prices()[-6:]))
        sites = np.array([self.total_us(floats, 0.0) for floats in ratios])
        converted = np.array([self.total_us(floats, 1.0) for floats in ratios]) - sites
        values = np.array(list(ratios.values()))
        # ratio * unit - price * converted = sites, each line divided by its ratio.
        lines = np.stack([np.ones_like(values), -converted / values], axis=1)
        (_, price), *_ = np.linalg.lstsq(lines, sites / values)
        return max(float(price), lowest)

    def cut(self, price: float) -> frozenset[str]:
        """The sites in float that make `total_us` least."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import maximum_flow

        names = list(self.sites.by_name)
        place = {name: index for index, name in enumerate(names)}
        source, sink = len(names), len(names) + 1  # int8 sites stay with the source, float ones go to the sink
        arcs: list[tuple[int, int, float]] = []
        converted = self._converted
        for name in names:
            arcs.append((source, place[name], self.float_us[name]))
            arcs.append((place[name], sink, self.int8_us[name] + price * converted[name]))
        for (writer, reader), count in self.sites.edges.items():
            arcs.append((place[writer], place[reader], price * count))
            arcs.append((place[reader], place[writer], price * count))
        total = sum(cost for *_, cost in arcs) or 1.0
        sums: dict[tuple[int, int], int] = {}
        for start, end, cost in arcs:
            sums[start, end] = sums.get((start, end), 0) + round(cost / total * _CAPACITIES)
        rows, columns = zip(*sums, strict=True)
        shape = (len(names) + 2, len(names) + 2)
        capacities = coo_array((np.array(list(sums.values()), np.int32), (rows, columns)), shape=shape).tocsr()
        flow = maximum_flow(capacities, source, sink).flow
        reached = _reachable((capacities - flow).tocsr(), source)
        return frozenset(name for name in names if place[name] not in reached)


def _reachable(residual: object, source: int) -> set[int]:
    """Nodes that can still be reached from the source: its side of the minimum cut."""
    seen, waiting = {source}, deque([source])
    while waiting:
        current = waiting.popleft()
        start, end = residual.indptr[current], residual.indptr[current + 1]  # type: ignore[attr-defined]
        for follower, left in zip(residual.indices[start:end], residual.data[start:end], strict=True):  # type: ignore[attr-defined]
            if left > 0 and int(follower) not in seen:
                seen.add(int(follower))
                waiting.append(int(follower))
    return seen
