"""Which networks are predicted: drawn by the tables' hashes, which are committed before any of them is measured."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from bitwright.experiments.benchmarks.latency.network_files import network_files
from bitwright.experiments.benchmarks.latency.pool import DEVELOPING, Variant, pool
from bitwright.quant.errors import InputError

HASHES = Path(__file__).parent / "table_hashes.json"
MEASURED_BEFORE = Path(__file__).parent / "measured_before.txt"  # of earlier draws: the predictor was tuned on them
COUNT = 110
# Families in which int8 may well lose: small pictures, gates, many concatenations, narrow depthwise convolutions.
_DOUBTFUL = frozenset(
    {
        *("gated32", "plain32", "separable32", "dense32", "branches32", "keyword", "perceptron", "encoder", "mixer"),
        *("efficientnet", "mobilenetv3", "lcnet", "tinynet", "ghostnet", "mixnet", "rexnet", "shufflenetv2", "regnet"),
        *("yolo_tiny", "dla", "densenet", "mobileone", "edgenext", "efficientvit", "mnasnet", "unet"),
    }
)


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

    From the second on, families in which int8 may well lose come first. Networks that cannot be exported, those of
    families for developing, and those of earlier draws are left out.
    """
    seen = frozenset(MEASURED_BEFORE.read_text(encoding="utf-8").split())
    seed = "".join(value for _, value in sorted(table_hashes().items()))

    def rank(text: str) -> str:
        return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()

    families: dict[str, list[Variant]] = {}
    for variant in pool():
        if variant.family in DEVELOPING or variant.name in seen:
            continue
        if not network_files(variant).reason:
            families.setdefault(variant.family, []).append(variant)
    turns = [
        (turn, turn > 0 and family not in _DOUBTFUL, rank(family), variant)
        for family, members in families.items()
        for turn, variant in enumerate(sorted(members, key=lambda each: rank(each.name)))
    ]
    return tuple(variant for *_, variant in sorted(turns, key=lambda each: each[:3]))[:count]


def developing() -> tuple[Variant, ...]:
    """The networks that the predictor may be tuned on."""
    return tuple(variant for variant in pool() if variant.family in DEVELOPING)
