"""Which networks are predicted: of families never seen before, in an order drawn by the tables' hashes.

The hashes are committed before any of them is measured. The networks of `pool`, `unseen` and `compact_draw` were
drawn and measured earlier; the predictor was tuned on them, and none of their families is drawn again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from bitwright.experiments.benchmarks.latency.compact_draw import compact_draw
from bitwright.experiments.benchmarks.latency.fresh import fresh
from bitwright.experiments.benchmarks.latency.network_files import network_files
from bitwright.experiments.benchmarks.latency.pool import DEVELOPING, Variant, pool
from bitwright.experiments.benchmarks.latency.unseen import unseen
from bitwright.quant.errors import InputError

HASHES = Path(__file__).parent / "table_hashes.json"
COUNT = 120


def table_hashes() -> dict[str, str]:
    """The committed hash of each runtime's table.

    Raises:
        InputError: they have not been written down yet.
    """
    if not HASHES.exists():
        raise InputError(
            f"{HASHES} is missing: write down the tables' hashes and commit them before networks are drawn"
        )
    hashes: dict[str, str] = json.loads(HASHES.read_text(encoding="utf-8"))
    return hashes


def drawn(count: int = COUNT) -> tuple[Variant, ...]:
    """One network of each family, then a second of each, and so on; in an order that only the hashes decide.

    Networks that cannot be exported are left out.
    """
    seed = "".join(value for _, value in sorted(table_hashes().items()))

    def rank(text: str) -> str:
        return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()

    families: dict[str, list[Variant]] = {}
    for variant in fresh():
        if not network_files(variant).reason:
            families.setdefault(variant.family, []).append(variant)
    turns = [
        (turn, rank(family), variant)
        for family, members in families.items()
        for turn, variant in enumerate(sorted(members, key=lambda each: rank(each.name)))
    ]
    return tuple(variant for *_, variant in sorted(turns, key=lambda each: each[:2]))[:count]


def earlier() -> tuple[Variant, ...]:
    """The networks of earlier draws, on which the predictor was tuned."""
    return (*pool(), *unseen(), *compact_draw())


def developing() -> tuple[Variant, ...]:
    """The networks that the predictor may be tuned on."""
    return tuple(variant for variant in pool() if variant.family in DEVELOPING)
