"""An ONNX file in the ONNX Runtime of another Python, and the version from which on it breaks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.parity_elsewhere import Elsewhere
from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.quant.parity.halving import first_broken
from bitwright.quant.parity.link import Array, Link, LinkError
from bitwright.quant.parity.locate import LinkParity, compare_links
from bitwright.quant.parity.results import Inputs

_LEVELS = {"disabled": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}


class OtherVersionLink(OnnxRuntimeLink):
    """An ONNX file in the ONNX Runtime of another Python."""

    def __init__(self, path: Path, elsewhere: Elsewhere, level: str = "all", name: str = "") -> None:
        """Reads a file.

        Args:
            path: an ONNX model.
            elsewhere: the other Python.
            level: how far its runtime may optimise the file.
            name: of the link.
        """
        super().__init__(path, level, name or f"onnxruntime {elsewhere.version}, optimisations: {level}")
        self._elsewhere = elsewhere

    def _open(
        self, model: onnx.ModelProto, *, level: str | None = None, optimized: Path | None = None, **options: Any
    ) -> Any:
        settings = {
            "level": f"ORT_{_LEVELS[level or self.level]}",
            "optimized": str(optimized or ""),
            "without": [],
            "entries": {"session.x64quantprecision": "1"} if this_machine().saturates_u8s8 else {},
        }
        key = f"{id(self)}, optimized" if optimized is not None else str(id(self))
        self._elsewhere.open(key, settings, {"model": np.frombuffer(model.SerializeToString(), np.uint8)})
        return key

    def _infer(self, session: Any, names: Sequence[str], feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        results = self._elsewhere.run(session, list(names), feeds)
        return {name: results[str(place)] for place, name in enumerate(names)}


@dataclass(frozen=True, kw_only=True)
class VersionBisection:
    """What halving over versions found.

    Attributes:
        versions: all of them, the oldest first.
        agrees: the version nearest to `breaks` that computes the network; empty where none that was asked does.
        breaks: the version next to it that does not; empty where none that was asked does that.
        parity: of that version.
        comparisons: how many it took.
    """

    versions: tuple[str, ...]
    agrees: str
    breaks: str
    parity: LinkParity | None
    comparisons: int


def bisect_versions(first: Link, links: Mapping[str, Link], inputs: Sequence[Inputs]) -> VersionBisection:
    """Finds two versions next to each other of which one computes the network and the other does not.

    Args:
        first: what the file was made from.
        links: the file in each version.
        inputs: what to run on; not empty.
    """
    versions = sorted(links, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])
    known: dict[int, LinkParity] = {}

    def compare(place: int) -> LinkParity:
        if place not in known:
            known[place] = _of_one(first, links[versions[place]], inputs)
        return known[place]

    newest = compare(len(versions) - 1)
    if compare(0).agrees is newest.agrees:
        only = "" if newest.agrees else versions[0]
        return VersionBisection(
            versions=tuple(versions),
            agrees="" if only else versions[-1],
            breaks=only,
            parity=known[0] if only else None,
            comparisons=len(known),
        )
    # Versions are walked towards those that break, so that "so many steps break" holds from some place on.
    order = range(len(versions)) if not newest.agrees else range(len(versions) - 1, -1, -1)
    found = first_broken(len(versions) - 1, lambda steps: compare(order[steps]))
    assert found is not None  # the last one breaks
    steps, parity = found
    return VersionBisection(
        versions=tuple(versions),
        agrees=versions[order[steps - 1]],
        breaks=versions[order[steps]],
        parity=parity,
        comparisons=len(known),
    )


def _of_one(first: Link, second: Link, inputs: Sequence[Inputs]) -> LinkParity:
    """A version that cannot run the file breaks it."""
    try:
        return compare_links(first, second, inputs)
    except LinkError as error:
        return LinkParity(first=first.name, second=second.name, problem=str(error))
