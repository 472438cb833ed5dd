"""What goes into a latency table: kernels that a runtime makes of networks drawn at random, some of these whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitwright.hw_constraints.kernels import FusionRules, Kernel, draw_kernels, probe_rules, split
from bitwright.hw_constraints.predict.random_networks import draw_networks
from bitwright.hw_constraints.table.measuring import Network
from bitwright.hw_constraints.table.row import hash_of_model
from bitwright.hw_constraints.table.store import KernelTable
from bitwright.hw_constraints.target import Target

FORMATS = ("float32", "int8")
NETWORKS = 150  # drawn for the kernels in them; about 20 new ones each
_STRAYS = 300  # of each format
_WHOLE = 60  # of these are measured whole, in each format
_AT_ONCE = 4
_RULES = "fusion_rules"  # the fact's name
_KERNELS_BETWEEN = 4  # batches of kernels from one batch of whole networks to the next


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A network that was drawn.

    Attributes:
        name: says which, and its format.
        model: ONNX.
        kernels: what the runtime runs for it.
    """

    name: str
    model: bytes
    kernels: tuple[Kernel, ...]


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
    for network in draw_networks(count, seed=seed):
        for number_format in formats:
            model = network.int8_file(target.scheme()) if number_format == "int8" else network.float_file()
            placed = split(model, rules.runtime, rules).kernels
            yield Drawn(
                name=f"{network.name}/{number_format}", model=model, kernels=tuple(each.kernel for each in placed)
            )


def rules_of(table: KernelTable) -> FusionRules:
    """What the table's runtime fuses: as the table says, else probed now, and written into it."""
    if (known := table.facts.get(_RULES)) is not None:
        return FusionRules.from_json(known)
    rules = probe_rules(table.key.runtime)
    table.add(facts={_RULES: rules.to_json()})
    return rules


def stray_kernels(runtime: str, formats: Sequence[str], *, seed: int) -> tuple[Kernel, ...]:
    """Kernels of all families, also of those that the drawn networks have none of."""
    return tuple(each for name in formats for each in draw_kernels(None, name, runtime, _STRAYS, seed))


def interspersed(
    table: KernelTable, kernels: Iterator[Sequence[Kernel]], networks: Sequence[Drawn], whole: int = _WHOLE
) -> Iterator[Sequence[Kernel | Network]]:
    """Batches of kernels, and every few of them a batch of whole networks that the table lacks.

    Args:
        table: what has been measured.
        kernels: batches of kernels.
        networks: all that were drawn.
        whole: how many of each format to measure whole.
    """
    have = {row.name: row.model_hash for row in table.networks}
    wanted = [each for number_format in FORMATS for each in _of_format(networks, number_format)[:whole]]
    queue = [each for each in wanted if have.get(each.name) != hash_of_model(each.model)]
    with tempfile.TemporaryDirectory() as folder:
        for number, batch in enumerate(kernels, 1):
            yield batch
            if number % _KERNELS_BETWEEN == 0 and queue:
                yield [_on_disk(each, Path(folder)) for each in queue[:_AT_ONCE]]
                queue = queue[_AT_ONCE:]


def _of_format(networks: Sequence[Drawn], number_format: str) -> list[Drawn]:
    return [each for each in networks if each.name.endswith(f"/{number_format}")]


def _on_disk(network: Drawn, folder: Path) -> Network:
    file = folder / f"{network.name.replace('/', '-')}.onnx"
    file.write_bytes(network.model)
    return Network(name=network.name, file=file, kernels=network.kernels)
