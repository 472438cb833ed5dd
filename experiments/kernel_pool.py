"""What goes into a latency table: kernels that a runtime makes of networks drawn at random, some of these whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from bitwright.hw_constraints.kernels import Family, FusionRules, Kernel, draw_kernels, probe_rules, split
from bitwright.hw_constraints.predict.heavy_networks import draw_heavy_networks
from bitwright.hw_constraints.predict.planned_model import float_model, planned_model
from bitwright.hw_constraints.predict.random_networks import RandomNetwork, draw_networks
from bitwright.hw_constraints.table.measuring import Network
from bitwright.hw_constraints.table.row import hash_of_model
from bitwright.hw_constraints.table.sampling import Fit
from bitwright.hw_constraints.table.second_look import suspects
from bitwright.hw_constraints.table.store import KernelTable
from bitwright.hw_constraints.target import Target
from bitwright.quant.plan import plan
from bitwright.quant.scheme import QuantScheme

FORMATS = ("float32", "int8")
NETWORKS = 150  # drawn for the kernels in them; about 20 new ones each
_WHOLE = 60  # of these are measured whole, in each format
_HEAVY = 14  # networks whose weights no cache keeps, measured whole as well
_HEAVY_MACS, _HEAVY_NODES = 2.5e9, 320  # at most: a call of 0.1 s, of which a table has time for a few
_AT_ONCE = 4
_RULES = "fusion_rules"  # the fact's name
_KERNELS_BETWEEN = 4  # batches of kernels from one batch of whole networks to the next
_LOOKS_BETWEEN = 8  # batches of kernels from one batch of second looks to the next
# Kernels that drawn networks may have none of. Of each format so many times `_STRAYS`: those families most whose shapes
# differ most in published networks (narrow, ragged, dilated, long, of few positions).
_STRAYS = 40
_STRAY_SHARES = {Family.POINTWISE: 10, Family.CONV: 12, Family.DEPTHWISE: 7, Family.POOL: 4, Family.COPY: 4} | {
    family: 3 for family in (Family.LINEAR, Family.GROUPED, Family.ELEMENTWISE, Family.RESIZE, Family.NORM)
} | {Family.NORM: 4, Family.CONCAT: 3, Family.ACTIVATION: 3} | {
    family: 2 for family in (Family.SOFTMAX, Family.OTHER, Family.CONV_TRANSPOSE)
}  # fmt: skip
_STRAY_MACS, _STRAY_BYTES = 3e8, 4e6  # larger ones take long and lie close to the roofline
_STRAYS_TOGETHER = 12  # weigh as much as one network


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A network that was drawn.

    Attributes:
        name: says which, and its format.
        network: to be written with values.
        scheme: how it is quantized; None in float.
        kernels: what the runtime runs for it.
    """

    name: str
    network: RandomNetwork
    scheme: QuantScheme | None
    kernels: tuple[Kernel, ...]

    def model(self) -> bytes:
        """ONNX, with values."""
        return self.network.float_file() if self.scheme is None else self.network.int8_file(self.scheme)


def drawn_networks(
    rules: FusionRules, target: Target, formats: Sequence[str], *, seed: int, count: int = NETWORKS
) -> Iterator[Drawn]:
    """Networks at random, each in all formats.

    Args:
        rules: what the runtime fuses.
        target: how int8 networks are quantized.
        formats: `float32`, `int8` or both.
        seed: of the draw.
        count: of networks.
    """
    yield from _in_formats(draw_networks(count, seed=seed), rules, target, formats)


def heavy_networks(rules: FusionRules, target: Target, formats: Sequence[str], *, seed: int) -> Iterator[Drawn]:
    """Networks at random whose weights no cache keeps; the arguments are those of `drawn_networks`."""
    light = [
        network
        for network in draw_heavy_networks(2 * _HEAVY, seed=seed)
        if len(network.graph.nodes) <= _HEAVY_NODES and sum(map(network.graph.macs, network.graph.nodes)) <= _HEAVY_MACS
    ]
    yield from _in_formats(light[:_HEAVY], rules, target, formats)


def _in_formats(
    networks: Sequence[RandomNetwork], rules: FusionRules, target: Target, formats: Sequence[str]
) -> Iterator[Drawn]:
    for network in networks:
        for number_format in formats:
            scheme = target.scheme() if number_format == "int8" else None
            graph = network.graph
            model = float_model(graph) if scheme is None else planned_model(graph, plan(graph, scheme))
            placed = split(model, rules.runtime, rules).kernels
            kernels = tuple(each.kernel for each in placed)
            yield Drawn(name=f"{network.name}/{number_format}", network=network, scheme=scheme, kernels=kernels)


def rules_of(table: KernelTable) -> FusionRules:
    """What the table's runtime fuses: as the table says, else probed now, and written into it."""
    if (known := table.facts.get(_RULES)) is not None:
        return FusionRules.from_json(known)
    rules = probe_rules(table.key.runtime)
    table.add(facts={_RULES: rules.to_json()})
    return rules


def stray_kernels(rules: FusionRules, formats: Sequence[str], *, seed: int) -> list[tuple[Kernel, ...]]:
    """Kernels of all families, also of those that the drawn networks have none of, as many together as a network has.

    Each lot holds kernels of many families, so that none of them weighs little everywhere.
    """
    lots: list[tuple[Kernel, ...]] = []
    for number_format in formats:
        drawn = [
            [
                kernel
                for kernel in draw_kernels(family, number_format, rules.runtime, _STRAYS * share, seed, rules)
                if kernel.macs <= _STRAY_MACS and max(kernel.input_bytes, kernel.output_bytes) <= _STRAY_BYTES
            ]
            for family, share in ((family, _STRAY_SHARES.get(family, 1)) for family in Family)
        ]
        mixed = [kernel for turn in zip_longest(*drawn) for kernel in turn if kernel is not None]
        lots += [tuple(mixed[at : at + _STRAYS_TOGETHER]) for at in range(0, len(mixed), _STRAYS_TOGETHER)]
    return lots


def interspersed(
    table: KernelTable, kernels: Iterator[Sequence[Kernel]], networks: Sequence[Drawn], fit: Fit, *, most: int
) -> Iterator[Sequence[Kernel | Network]]:
    """Batches of kernels; every few of them a batch of whole networks that the table lacks, and one of second looks.

    Args:
        table: what has been measured.
        kernels: batches of kernels.
        networks: to measure whole, in this order.
        fit: tells which rows are unlike the others.
        most: placements of a first look at most.
    """
    queue = list(networks)
    with tempfile.TemporaryDirectory() as folder:
        for number, batch in enumerate(kernels, 1):
            yield batch
            if number % _KERNELS_BETWEEN == 0 and (whole := _next_missing(table, queue, Path(folder))):
                yield whole
            if number % _LOOKS_BETWEEN == 0 and (again := suspects(table.measured, fit, most=most)):
                yield again[: len(batch)]


def whole_networks(networks: Sequence[Drawn], heavy: Sequence[Drawn]) -> list[Drawn]:
    """What is measured whole, in an order that has some of each format and of the heavy ones at any length."""
    ordinary = [
        each
        for turn in zip_longest(*(_of_format(networks, name)[:_WHOLE] for name in FORMATS))
        for each in turn
        if each
    ]
    between = max(1, len(ordinary) // max(1, len(heavy)))
    mixed: list[Drawn] = []
    left = list(heavy)
    for number, each in enumerate(ordinary, 1):
        mixed.append(each)
        if number % between == 0 and left:
            mixed.append(left.pop(0))
    return [*mixed, *left]


def _next_missing(table: KernelTable, queue: list[Drawn], folder: Path) -> list[Network]:
    """Takes the next networks that the table lacks from the queue, and writes their files."""
    have = {row.name: row.model_hash for row in table.networks}
    found: list[Network] = []
    for file in folder.iterdir():
        file.unlink()
    while queue and len(found) < _AT_ONCE:
        network = queue.pop(0)
        model = network.model()
        if have.get(network.name) != hash_of_model(model):
            file = folder / f"{network.name.replace('/', '-')}.onnx"
            file.write_bytes(model)
            found.append(Network(name=network.name, file=file, kernels=network.kernels))
    return found


def _of_format(networks: Sequence[Drawn], number_format: str) -> list[Drawn]:
    return [each for each in networks if each.name.endswith(f"/{number_format}")]
