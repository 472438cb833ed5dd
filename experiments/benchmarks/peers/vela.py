"""Runs Arm's Vela on a graph with the fixed options of `vela_options.json`; results are kept by their inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitwright.experiments.benchmarks.peers.asking import ask, script
from bitwright.experiments.benchmarks.tflite_network import TfliteNetwork

PEER = "vela"
OPTIONS_FILE = Path(__file__).parent / "vela_options.json"


@dataclass(frozen=True, kw_only=True)
class VelaRun:
    """What Vela says of one network on one configuration.

    Attributes:
        version: of Vela.
        wall_s: of the compiler's process.
        summary: its summary line by column.
        layers: its lines for single operations, in the order of the schedule.
        folder: where its files lie.
    """

    version: str
    wall_s: float
    summary: dict[str, str]
    layers: tuple[dict[str, str], ...]
    folder: Path


def configurations() -> dict[str, list[str]]:
    """Vela's options by target."""
    options: dict[str, list[str]] = json.loads(OPTIONS_FILE.read_text())
    return options


def run_vela(name: str, network: TfliteNetwork, *, home: Path, cache: Path) -> dict[str, VelaRun]:
    """Compiles a network for every configuration.

    Args:
        name: of the network, for the folder.
        network: its int8 form.
        home: the folder of the peers' environments.
        cache: where results are kept.

    Raises:
        InputError: Vela is not installed, or it failed; the message ends with its last words.
    """
    cache.mkdir(parents=True, exist_ok=True)
    arrays = cache / f"{name}-arrays.npz"
    described = network.described()
    np.savez(arrays, **network.arrays)  # type: ignore[arg-type]
    request = {"network": described, "arrays": str(arrays), "options": configurations()}
    writer = script(PEER).with_name("vela_tflite.py")
    answer = ask(PEER, name, request, home=home, cache=cache, files=(arrays, writer))
    return {
        target: VelaRun(
            version=answer["version"],
            wall_s=run["wall_s"],
            summary=run["summary"],
            layers=tuple(run["layers"]),
            folder=Path(run["folder"]),
        )
        for target, run in answer["runs"].items()
    }
