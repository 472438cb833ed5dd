"""From named values to the `Graph`: every tensor gets its reference, every node its name, module and line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.graph import Graph, Node, TensorInfo, TensorKind, TensorRef
from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Network
from bitwright.quant.onnx_import.origins import Origins, base_name
from bitwright.quant.onnx_import.values import Shape, Values

Load = Callable[[], npt.NDArray[Any]]


class References:
    """Gives each value of a draft one reference: our own files name it, others get one from module and order."""

    def __init__(self, network: Network, origins: Origins, inputs: Iterable[str]) -> None:
        self._network = network
        self._origins = origins
        self._inputs = set(inputs)
        self.by_value: dict[str, TensorRef] = {}
        self._taken: set[TensorRef] = set()
        self._constants: dict[TensorRef, Shape] = {}
        self._ordinals: Counter[str] = Counter()
        self._number_results()

    def _number_results(self) -> None:
        """First those that have a reference of their own, so that the others keep out of their way."""
        calls = self._network.calls
        for call in calls:
            for name in call.outputs:
                ref = self._origins.ref(name)
                if ref is not None and ref.is_op_result and ref not in self._taken:
                    self._take(name, ref)
        for call in calls:
            unnamed = [name for name in call.outputs if name not in self.by_value]
            if unnamed:
                path = self._network.origin(call).module_path
                ordinal = self._free_ordinal(path)
                for output, name in enumerate(call.outputs):
                    if name in unnamed:
                        self._take(name, TensorRef("", path, 0, ordinal, output))

    def _free_ordinal(self, path: str) -> int:
        while True:
            ordinal = self._ordinals[path]
            self._ordinals[path] += 1
            if not any(TensorRef("", path, 0, ordinal, output) in self._taken for output in range(2)):
                return ordinal

    def _take(self, name: str, ref: TensorRef) -> None:
        self.by_value[name] = ref
        self._taken.add(ref)

    def of(self, name: str) -> TensorRef:
        """The reference of a value; inputs and constants get theirs when they are first met."""
        if name not in self.by_value:
            wanted, kind = self._wanted(name), self._network.draft.values.types[name]
            # A parameter that layers share is in our files once for each scale that its codes have.
            shared = self._constants.get(wanted) == kind.shape
            ref = wanted if shared else self._free(wanted)
            if self._network.draft.is_own and self._network.is_constant(name):
                self._constants[ref] = kind.shape
            self._take(name, ref)
        return self.by_value[name]

    def _wanted(self, name: str) -> TensorRef:
        shown = base_name(name) if self._network.draft.is_own else name
        ref = self._origins.ref(shown)
        if name in self._inputs:
            known = ref is not None and not ref.is_op_result and ref.module_path.startswith("$")
            return ref if known and ref is not None else TensorRef("", f"${_legal(name)}")
        constant = self._network.draft.dequantized.get(name, name).partition("#")[0]
        return ref if ref is not None else TensorRef("", _legal(constant))

    def _free(self, ref: TensorRef) -> TensorRef:
        if ref not in self._taken:
            return ref
        number = 1
        while (other := TensorRef(ref.region, f"{ref.module_path}_{number}")) in self._taken:
            number += 1
        return other


def _legal(name: str) -> str:
    """A name without the signs that references are written with."""
    return name.replace("!", "_").replace("@", "_")


class _Tensors:
    """The tensors of the graph so far, and how to read those that are known before it runs."""

    def __init__(self, values: Values, references: References) -> None:
        self._values = values
        self._references = references
        self.infos: dict[TensorRef, TensorInfo] = {}
        self.loaders: dict[TensorRef, Load] = {}

    def note(self, name: str, kind: TensorKind) -> TensorRef:
        """Gives a value its place among the tensors; what it was noted as first, it stays."""
        ref, known = self._references.of(name), self._values.types[name]
        if ref not in self.infos:
            self.infos[ref] = TensorInfo(ref=ref, shape=known.shape, dtype=known.dtype, kind=kind)
            if self._values.is_constant(name):
                self.loaders[ref] = self._values.loaders[name]
        return ref

    def load(self, ref: TensorRef) -> npt.NDArray[Any]:
        """The values of a constant or of an initial state."""
        if ref not in self.loaders:
            raise LookupError(f"tensor {ref} has no values in this graph")
        return np.asarray(self.loaders[ref]())


def assemble(
    network: Network,
    origins: Origins,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    state: Mapping[str, tuple[str, Load]],
) -> tuple[Graph, dict[str, TensorRef]]:
    """Makes the graph.

    Args:
        network: the calls that are left.
        origins: where they come from.
        inputs: values that come in, without the state.
        outputs: values that go out, without the state.
        state: incoming values of buffers that forward mutates, the outgoing ones, and how to read the initial ones.

    Returns:
        The graph, and the reference of each value in it.
    """
    references = References(network, origins, inputs)
    tensors, names = _Tensors(network.draft.values, references), _Names()
    incoming = [tensors.note(name, TensorKind.INPUT) for name in inputs]
    states = [(tensors.note(before, TensorKind.STATE), after) for before, (after, _) in state.items()]
    tensors.loaders.update({references.of(before): initial for before, (_, initial) in state.items()})
    nodes = []
    for call in network.calls:
        operands = [
            None if name is None else tensors.note(name, _constant_kind(call, position))
            for position, name in enumerate(call.inputs)
        ]
        results = [tensors.note(name, TensorKind.ACTIVATION) for name in call.outputs]
        nodes.append(_node(network, call, names, operands, results))
    graph = Graph(
        nodes=tuple(nodes),
        tensors=tensors.infos,
        inputs=tuple(incoming),
        outputs=tuple(tensors.note(name, TensorKind.CONSTANT) for name in outputs),
        state=tuple((before, tensors.note(after, TensorKind.CONSTANT)) for before, after in states),
        load=tensors.load,
    )
    return graph, references.by_value


# Running statistics are buffers; what else a file holds may have been trained.
_STATISTICS = {("batch_norm", 3), ("batch_norm", 4)}


def _constant_kind(call: Call, position: int) -> TensorKind:
    return TensorKind.BUFFER if (call.op, position) in _STATISTICS else TensorKind.PARAMETER


class _Names:
    """Names of nodes: the exporter's where they are known and free, else the operator's with a number."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, wanted: str, op: str) -> str:
        base = wanted or op
        name, number = base, 0
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


def _node(
    network: Network, call: Call, names: _Names, inputs: Sequence[TensorRef | None], outputs: Sequence[TensorRef]
) -> Node:
    origin = network.origin(call)
    alone = len(network.group(call)) == 1
    wanted = origin.name if origin.name and alone else call.origin.name
    return Node(
        name=names.new(wanted, call.op),
        op=call.op,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        attributes=call.attributes,
        module_path=origin.module_path,
        module_type=origin.module_type,
        source=origin.source,
    )
