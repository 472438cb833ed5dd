"""A captured network: a functional ATen graph that can be run, looked at, observed and rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.fx
import torch.utils._pytree as pytree

from bitwright.quant.describe import describe
from bitwright.quant.errors import InputError
from bitwright.quant.fx_nodes import REF
from bitwright.quant.graph import Graph, TensorRef

Transform = Callable[[TensorRef, torch.Tensor], torch.Tensor]


class Keywords(dict[str, Any]):
    """Keyword arguments of `forward`, as the last element of a tuple of arguments."""


pytree.register_pytree_node(
    Keywords,
    lambda keywords: (list(keywords.values()), tuple(keywords)),
    lambda values, names: Keywords(zip(names, values, strict=True)),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class CapturedModel:
    """A network as `torch.export` sees it, with identities, and with its parameters lifted to arguments.

    Attributes:
        fx_graph: functional ATen operators; placeholders are the values' names, then the inputs. Every node that
            makes a tensor carries its `TensorRef` in `meta`.
        values: parameters, buffers, constants and the initial state, by placeholder name.
        in_spec: how the user's `(args, kwargs)` flatten into the inputs.
        out_spec: how the outputs unflatten into what the user's `forward` returned.
        replaced: tensors that rewrites have removed, and what stands for each now.
    """

    fx_graph: torch.fx.Graph
    values: Mapping[str, torch.Tensor]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    replaced: Mapping[TensorRef, TensorRef] = field(default_factory=dict)

    @cached_property
    def graph(self) -> Graph:
        """The same network, torch-free."""
        return describe(self)

    @cached_property
    def state_names(self) -> tuple[str, ...]:
        """Placeholders of the buffers that forward mutates, in the order of the outgoing state."""
        return tuple(self._output.meta["bitwright_state"])

    @cached_property
    def value_refs(self) -> dict[TensorRef, str]:
        """The placeholder of each parameter, buffer and constant."""
        return {n.meta[REF][0]: n.name for n in self.fx_graph.nodes if n.op == "placeholder" and n.name in self.values}

    def initial_state(self) -> dict[str, torch.Tensor]:
        """A fresh copy of the buffers that forward mutates, as they were at capture."""
        return {name: self.values[name].clone() for name in self.state_names}

    @torch.no_grad()
    def run(self, *args: Any, **options: Any) -> Any:
        """Runs the network on the user's own arguments and returns what their `forward` would; see `execute`."""
        return self.execute(*args, **options)

    def execute(
        self,
        *args: Any,
        state: dict[str, torch.Tensor] | None = None,
        transform: Transform | None = None,
        operands: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `run`, recording gradients where the caller has them on.

        Args:
            *args: positional arguments of `forward`.
            state: mutated buffers; updated in place. None starts from the captured state and forgets it.
            transform: called with each input, each incoming state and each operator result; what it returns is
                passed on.
            operands: what single nodes read in place of the captured parameters: by the node's name, then by the
                placeholder's.
            **kwargs: keyword arguments of `forward`.

        Raises:
            InputError: the arguments have another structure or other shapes than those it was captured with.
        """
        inputs = self.flatten(args, kwargs)
        incoming = state if state is not None else self.initial_state()
        keep = transform or (lambda ref, tensor: tensor)
        special = operands or {}
        environment: dict[torch.fx.Node, Any] = {}
        for node, dead in self.steps:
            if node.op == "placeholder":
                ref = node.meta[REF][0]
                if node.name in incoming:
                    environment[node] = keep(ref, incoming[node.name])
                else:
                    environment[node] = self.values[node.name] if node.name in self.values else keep(ref, next(inputs))
            else:
                call(node, environment, keep, special.get(node.name))
            for spent in dead:
                del environment[spent]
        results: Any = torch.fx.node.map_arg(self._output.args[0], environment.__getitem__)
        count = len(self.state_names)
        if state is not None:
            state.update(zip(self.state_names, results[:count], strict=True))
        return pytree.tree_unflatten(list(results[count:]), self.out_spec)

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
        """The user's arguments as a flat sequence of tensors, checked against the captured ones.

        `Keywords` at the end of `args` are keyword arguments.

        Raises:
            InputError: another structure, shape or type than at capture.
        """
        if args and isinstance(args[-1], Keywords):
            args, kwargs = args[:-1], {**args[-1], **kwargs}
        wanted_args, wanted_kwargs = self._expected_call
        if set(kwargs) == set(wanted_kwargs):
            kwargs = {name: kwargs[name] for name in wanted_kwargs}  # the order in which they are given says nothing
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if spec != self.in_spec:
            raise InputError(
                f"got the arguments {_spell_call(args, kwargs)}; "
                f"the model was captured with {_spell_call(wanted_args, wanted_kwargs)}"
            )
        for node, leaf in zip(self.input_nodes, leaves, strict=True):
            want = node.meta["val"]
            if _spell(leaf) != _spell(want):
                raise InputError(
                    f"input {node.meta[REF][0]}: got {_spell(leaf)}; the model was captured with {_spell(want)}; give "
                    "samples like those, or capture it with an example like these"
                )
        return iter(leaves)

    def outputs(self, results: Any) -> list[torch.Tensor]:
        """What `run` returned as a flat list of tensors, in the order of `graph.outputs`."""
        return [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]

    def arguments(self, batch: Any) -> tuple[Any, ...]:
        """A batch of calibration data as arguments of `run`.

        A tuple is taken apart, everything else is the only argument. Where the network was captured with keyword
        arguments, a dict of exactly these (the last element of the tuple, or the batch itself) is passed by keyword.
        """
        args = batch if isinstance(batch, tuple) else (batch,)
        positional, keywords = self._expected_call
        named = len(args) == len(positional) + 1 and isinstance(args[-1], Mapping) and set(args[-1]) == set(keywords)
        return (*args[:-1], Keywords(args[-1])) if keywords and named else args

    @cached_property
    def input_nodes(self) -> list[torch.fx.Node]:
        """The placeholders of the user's own arguments, in their flattened order."""
        return [n for n in self.fx_graph.nodes if n.op == "placeholder" and n.name not in self.values]

    @cached_property
    def _expected_call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of the capture, in their own structure."""
        args, kwargs = pytree.tree_unflatten([node.meta["val"] for node in self.input_nodes], self.in_spec)
        return args, kwargs

    @cached_property
    def _output(self) -> torch.fx.Node:
        return self.fx_graph.output_node()

    @cached_property
    def steps(self) -> list[tuple[torch.fx.Node, list[torch.fx.Node]]]:
        """Each node with those whose last reader it is, so that memory is given back in time."""
        last: dict[torch.fx.Node, torch.fx.Node] = {}
        for node in self.fx_graph.nodes:
            for operand in node.all_input_nodes:
                last[operand] = node
        dead: dict[torch.fx.Node, list[torch.fx.Node]] = {}
        for operand, reader in last.items():
            dead.setdefault(reader, []).append(operand)
        return [(node, dead.get(node, [])) for node in self.fx_graph.nodes if node.op != "output"]


def call(
    node: torch.fx.Node,
    environment: MutableMapping[torch.fx.Node, Any],
    transform: Transform,
    own: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Runs one operator on what `environment` holds and puts there what `transform` makes of its result.

    Args:
        node: the operator.
        environment: the value of each node that it reads.
        transform: as of `CapturedModel.execute`.
        own: what it reads in place of parameters, by the placeholder's name.
    """
    read = _reader(environment, own)
    arguments = torch.fx.node.map_arg(node.args, read)
    keywords = torch.fx.node.map_arg(node.kwargs, read)
    result = node.target(*arguments, **keywords)  # type: ignore[operator]
    refs = node.meta[REF]
    if not refs:
        pass
    elif isinstance(result, torch.Tensor):
        result = transform(refs[0], result)
    elif isinstance(result, list | tuple):
        result = [transform(ref, part) if ref else part for ref, part in zip(refs, result, strict=True)]
    environment[node] = result


def _reader(
    environment: Mapping[torch.fx.Node, Any], own: Mapping[str, torch.Tensor] | None
) -> Callable[[torch.fx.Node], Any]:
    if not own:
        return environment.__getitem__
    return lambda operand: own[operand.name] if operand.name in own else environment[operand]


@dataclass(frozen=True)
class _Spelled:
    text: str

    def __repr__(self) -> str:
        return self.text


def _spell_call(args: Any, kwargs: Any) -> str:
    args, kwargs = pytree.tree_map(lambda leaf: _Spelled(_spell(leaf)), (args, kwargs))
    return f"({', '.join([*map(repr, args), *(f'{name}={value!r}' for name, value in kwargs.items())])})"


def _spell(leaf: Any) -> str:
    if not isinstance(leaf, torch.Tensor):
        return repr(leaf)
    return f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"
