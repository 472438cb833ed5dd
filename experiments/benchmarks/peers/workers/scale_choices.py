"""One network in one format under several choices of its scales: all ranges times a factor, activations and weights.

Formats with a floating point have about the same relative error at any scale, yet which values lie on ties differs, and
so does the noise of a network that amplifies single errors. One choice is a draw; this asks for several.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
from exchange import Images, Request

Forward = Callable[[Images], npt.NDArray[np.float32]]
BATCH = 20


def serve_choices(packages: tuple[str, ...], prepare: Callable[[Request], Callable[[float], Forward]]) -> None:
    """Answers `{…Request, factors}` with `{logits, wall_s, versions}`; logits are a .npy [factors, images, classes].

    Args:
        packages: whose versions are reported.
        prepare: quantizes the network and returns what gives the forward of the network with its ranges times a factor.
    """
    given = json.loads(Path(sys.argv[1]).read_text())
    factors = given.pop("factors")
    request = Request(**given)
    start = time.perf_counter()
    choose = prepare(request)
    scored = np.load(request.scored, mmap_mode="r")
    logits, wall_s = [], time.perf_counter() - start
    for factor in factors:
        start = time.perf_counter()
        forward = choose(factor)
        wall_s += time.perf_counter() - start
        logits.append(
            np.concatenate([forward(np.array(scored[at : at + BATCH])) for at in range(0, len(scored), BATCH)])
        )
    file = Path(request.folder) / "logits.npy"
    np.save(file, np.stack(logits))
    versions = {name: metadata.version(name) for name in packages}
    Path(sys.argv[2]).write_text(json.dumps({"logits": str(file), "wall_s": wall_s, "versions": versions}, indent=1))
