"""What torch's compiler makes of a captured network, with any of its tensors as results of the compiled whole.

Tensors that are asked for become outputs: the compiler stores them beside what it computes anyway, and everything else
is fused as before. They cannot be given, since that would cut a network into one kernel for each operator.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

import torch
import torch.fx
import torch.utils._pytree as pytree

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.fx_nodes import REF, copy_graph, ref_of
from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.nudge import Nudge
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity.torch_links import graph_tensors, named_outputs, to_array


class CompiledLink:
    """A captured network in `torch.compile`."""

    takes_tensors = False
    replaced: Mapping[str, str] = {}

    def __init__(self, captured: CapturedModel, name: str = "torch.compile", *, backend: str = "inductor") -> None:
        """Prepares a link; it is compiled at the first run, and again for other tensors.

        Args:
            captured: the network.
            name: of the link.
            backend: one of torch's, such as `inductor` or `aot_eager`.
        """
        self.captured, self.name, self._backend = captured, name, backend
        self._compiled: dict[tuple[str, ...], Callable[..., Any]] = {}

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """Every result of an operator."""
        return graph_tensors(self.captured.graph)

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """Runs once; see `Link.run`. `given` is not obeyed.

        Raises:
            LinkError: the compiler or what it made fails.
        """
        names = tuple(wanted)
        shaken = Nudge(on=nudge).inputs(inputs)
        leaves = self.captured.flatten(tuple(shaken.args), dict(shaken.kwargs))
        values, places = self.captured.values, self.captured.fx_graph.find_nodes(op="placeholder")
        arguments = [values[node.name] if node.name in values else next(leaves) for node in places]
        try:
            with torch.no_grad():
                results = self._whole(names)(*arguments)
        except Exception as error:  # compilers raise anything
            raise LinkError(f"{self.name}: {type(error).__name__}: {' '.join(str(error).split())[:400]}") from error
        own = results[len(self.captured.state_names) : len(results) - len(names)]
        return Recording(
            outputs=named_outputs(pytree.tree_unflatten(list(own), self.captured.out_spec)),
            tensors={
                name: to_array(each) for name, each in zip(names, results[len(results) - len(names) :], strict=True)
            },
        )

    def _whole(self, names: tuple[str, ...]) -> Callable[..., Any]:
        """The compiled network with these tensors behind its own results; one at a time is kept."""
        if names not in self._compiled:
            graph, _ = copy_graph(self.captured.fx_graph)
            makers = {name: node for node in graph.nodes if (name := _tensor_of(node))}
            output = graph.output_node()
            own: Any = output.args[0]
            output.args = ((*own, *(makers[name] for name in names)),)
            module = torch.fx.GraphModule(torch.nn.Module(), graph)
            self._compiled = {names: torch.compile(module, backend=self._backend, dynamic=False)}
        return self._compiled[names]


def _tensor_of(node: torch.fx.Node) -> str:
    """The name of the one tensor that a node makes; empty for results of several, of which parts are taken."""
    if node.target is operator.getitem:
        ref = ref_of(node)
    else:
        refs = node.meta.get(REF, ())
        ref = refs[0] if len(refs) == 1 and isinstance(node.meta.get("val"), torch.Tensor) else None
    return value_name(ref) if ref is not None else ""
