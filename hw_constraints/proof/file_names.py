"""Finds the nodes of a file behind the names in another tool's report.

Tools keep names of nodes or values and add to them: `conv4/n/WithoutBiases`, `fused conv`, `node_of_y`, `conv_quant`,
`conv:OpId_7`. A name counts as known when it is one of the file's, or begins with one up to a separator; but an added
number makes another name (`Conv_1` is not `Conv`), unless a word explains it (`conv_token_12`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph

_PREFIXES = ("node_of_", "fused ")
_BOUNDARY = re.compile(r"[/_:. \[(]")
_NUMBERED = re.compile(r"(?<!token)(?<!clone)(?<!copy)(?<!OpId)[/_:. ]\d+$")


class FileNames:
    """The names of a file's nodes and values, with the position of the node that each stands for."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._positions = {value: index for index, node in enumerate(graph.nodes) for value in node.output if value}
        # The name of a node wins over an equal one of a value.
        self._positions |= {node.name: index for index, node in enumerate(graph.nodes) if node.name}
        self._others = {item.name for item in graph.inputs} | set(graph.constants)

    def positions(self, names: Iterable[str]) -> tuple[int, ...]:
        """The nodes behind the names that are known, in order, each once."""
        found = (self._position(name) for name in names)
        return tuple(dict.fromkeys(index for index in found if index is not None))

    def is_known(self, name: str) -> bool:
        """Whether a name is one of a node, a value, an input or a constant of the file."""
        return name in self._others or self._position(name) is not None

    def _position(self, name: str) -> int | None:
        if name in self._positions:
            return self._positions[name]
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                return self._position(name.removeprefix(prefix))
        for cut in reversed([match.start() for match in _BOUNDARY.finditer(name)]):
            if name[:cut] in self._positions and not _NUMBERED.search(name[cut:]):
                return self._positions[name[:cut]]
        return None
