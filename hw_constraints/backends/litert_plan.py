"""Which nodes of a `.tflite` file each executed operator stands for.

Behind the file's own nodes LiteRT appends one node for each part of the graph that a delegate took over
(`Subgraph::ReplaceNodeSubsetsWithDelegateKernels`), with the tensors that enter and leave that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitwright.hw_constraints.backends.litert_profiler import Event
from bitwright.hw_constraints.backends.xnnpack import multiplies_weights

_DELEGATE = "DELEGATE"
_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"})


class ExecutionPlan:
    """The nodes of a loaded model, and the parts of it that a delegate runs."""

    def __init__(self, interpreter: Any) -> None:
        self._tensors = {details["index"]: details for details in interpreter.get_tensor_details()}
        nodes = interpreter._get_ops_details()  # the interpreter has no public list of its nodes
        self._nodes = [node for node in nodes if node["op_name"] != _DELEGATE]
        delegated = [node for node in nodes if node["op_name"] == _DELEGATE]
        self._producers = {
            int(tensor): position for position, node in enumerate(self._nodes) for tensor in node["outputs"]
        }
        self._parts = [self._part(node) for node in delegated]

    def name_of(self, position: int) -> str:
        """What a node of the file is called: by its first result; of a delegated part, by its last node's."""
        if position >= len(self._nodes):
            position = self._parts[position - len(self._nodes)][-1]
        return str(self._tensors[int(self._nodes[position]["outputs"][0])]["name"])

    def dtype_read_by(self, position: int) -> str:
        """NumPy's name of the type of a node's first operand."""
        return str(np.dtype(self._tensors[int(self._nodes[position]["inputs"][0])]["dtype"]).name)

    def originals(self, events: Sequence[Event]) -> list[tuple[str, ...]]:
        """For each executed operator the names of the file's nodes that it stands for.

        XNNPACK does not tell which operator came from which node. It keeps their order, so in a part with as many
        products as nodes with weights the n-th is the n-th; the operators between them are left without a name.
        """
        found: list[tuple[str, ...]] = [
            () if event.is_delegated else (self.name_of(event.position),) for event in events
        ]
        runs = _delegated_runs(events)
        if len(runs) != len(self._parts):
            return found
        for run, part in zip(runs, self._parts, strict=True):
            products = [place for place in run if multiplies_weights(events[place].op)]
            weighted = [position for position in part if self._nodes[position]["op_name"] in _WEIGHTED]
            if len(products) == len(weighted):
                for place, position in zip(products, weighted, strict=True):
                    found[place] = (self.name_of(position),)
        return found

    def _part(self, delegate: Any) -> list[int]:
        """The file's nodes between the tensors that enter and those that leave, in the file's order."""
        entering = set(map(int, delegate["inputs"]))
        members: set[int] = set()
        open_tensors = [int(tensor) for tensor in delegate["outputs"]]
        while open_tensors:
            position = self._producers.get(open_tensors.pop())
            if position is not None and position not in members:
                members.add(position)
                operands = (int(tensor) for tensor in self._nodes[position]["inputs"])
                open_tensors.extend(tensor for tensor in operands if tensor not in entering)
        return sorted(members)


def _delegated_runs(events: Sequence[Event]) -> list[list[int]]:
    """Places of XNNPACK's operators, by delegated part: each part counts its own from 0."""
    runs: list[list[int]] = []
    for place, event in enumerate(events):
        if event.is_delegated:
            if event.position == 0:
                runs.append([])
            runs[-1].append(place)
    return runs
