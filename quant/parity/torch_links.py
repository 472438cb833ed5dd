"""The links that PyTorch runs: the user's own module, the captured network, its simulation, the integer reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from bitwright.quant.captured_model import CapturedModel, Transform
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.fake_quantize import quantize
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.integer.codes import Grid
from bitwright.quant.integer.network import IntegerLayers, grid_of
from bitwright.quant.integer.rules import MLAS, Arithmetic
from bitwright.quant.parity.link import Array, LinkError, LinkTensor, Recording
from bitwright.quant.parity.nudge import Nudge
from bitwright.quant.parity.partial import run_part, state_before
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity_measures.rounding import rounding_of
from bitwright.quant.parity_measures.rounding_noise import RoundingNoise
from bitwright.quant.preserve import preserved
from bitwright.quant.quantized_model import QuantizedModel


def to_array(tensor: torch.Tensor) -> Array:
    """A copy; types that NumPy lacks (bfloat16, float8) become float32, which holds all their values."""
    tensor = tensor.detach().cpu()
    if tensor.dtype.is_floating_point and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    return np.array(tensor.numpy())


def array_arguments(inputs: Inputs) -> list[Array]:
    """The arguments of the user's `forward` as arrays, in the order in which `torch.export` flattens them."""
    leaves = pytree.tree_leaves((inputs.args, dict(inputs.kwargs)))
    return [to_array(each) if isinstance(each, torch.Tensor) else np.asarray(each) for each in leaves]


def named_outputs(results: Any) -> dict[str, Array]:
    """Every tensor of what `forward` returned, by its place: dicts, tuples, data classes that pytree knows.

    A data class that it does not know is taken apart by its fields.
    """
    leaves, _ = pytree.tree_flatten_with_path(results)
    found: dict[str, Array] = {}
    for path, leaf in leaves:
        place = f"result{pytree.keystr(path)}"
        if isinstance(leaf, torch.Tensor):
            found[place] = to_array(leaf)
        elif isinstance(leaf, np.ndarray | np.generic | float | int):
            found[place] = np.asarray(leaf)
        elif hasattr(leaf, "__dataclass_fields__"):
            for name in leaf.__dataclass_fields__:
                inner = named_outputs(getattr(leaf, name))
                found |= {f"{place}.{name}{key.removeprefix('result')}": value for key, value in inner.items()}
    return found


class CapturedLink:
    """A captured network: as it is, or behind a rewrite."""

    takes_tensors = True
    _runs_in_part = True

    def __init__(self, captured: CapturedModel, name: str = "captured") -> None:
        self.captured, self.name = captured, name

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """Every result of an operator."""
        return graph_tensors(self.captured.graph, self._grid, self._weight_noise)

    @property
    def replaced(self) -> Mapping[str, str]:
        """What rewrites have put in place of others."""
        return {value_name(old): value_name(new) for old, new in self.captured.replaced.items()}

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """Runs once; see `Link.run`."""
        found: dict[str, Array] = {}
        unrounded: dict[str, Array] = {}
        asked, taken = frozenset(wanted), given or {}
        see = self._see()
        draw = torch.Generator().manual_seed(0) if nudge else None

        def visit(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
            made = tensor if draw is None else self._noise.made(ref, tensor, draw)
            name, seen = value_name(ref), see(ref, made)
            if name in asked:
                found[name] = to_array(seen)
                if self._grid(ref) is not None:
                    unrounded[name] = to_array(made)
            if name in taken:
                seen = self._take(ref, torch.from_numpy(np.array(taken[name])).to(seen.dtype))
            return seen if draw is None else self._noise.read(ref, seen, draw)

        def stand_in(ref: TensorRef, dtype: torch.dtype) -> torch.Tensor:
            seen = torch.from_numpy(np.array(taken[value_name(ref)])).to(dtype)
            return seen if draw is None else self._noise.read(ref, seen, draw)

        if taken and self._runs_in_part:
            run_part(
                self.captured,
                inputs,
                wanted=asked,
                given=taken,
                transform=visit,
                stand_in=stand_in,
                operands=self._operands,
            )
            return Recording(outputs={}, tensors=found, unrounded=unrounded)
        state = state_before(self.captured, inputs)
        results = self._execute(inputs, visit, state)
        after = {value_name(ref): to_array(state[node]) for ref, node in _states(self.captured)}
        return Recording(outputs=named_outputs(results), tensors=found, unrounded=unrounded, state=after)

    @property
    def _operands(self) -> Mapping[str, Mapping[str, torch.Tensor]]:
        """What operators read in place of parameters."""
        return {}

    @cached_property
    def _noise(self) -> RoundingNoise:
        return RoundingNoise(self.captured)

    def _see(self) -> Callable[[TensorRef, torch.Tensor], torch.Tensor]:
        """What the readers of a tensor get; made anew for each run."""
        return lambda ref, tensor: tensor

    def _take(self, ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def _grid(self, ref: TensorRef) -> Grid | None:
        return None

    def _weight_noise(self, node: Node) -> float:
        return 0.0

    def _execute(self, inputs: Inputs, visit: Transform, state: dict[str, torch.Tensor]) -> Any:
        return self.captured.run(*inputs.args, state=state, transform=visit, **inputs.kwargs)


class SimulationLink(CapturedLink):
    """A quantized network in fake quantization."""

    def __init__(self, quantized: QuantizedModel, name: str = "simulation") -> None:
        super().__init__(quantized.captured, name)
        self.quantized = quantized

    def _see(self) -> Callable[[TensorRef, torch.Tensor], torch.Tensor]:
        return self.quantized.transform

    def _grid(self, ref: TensorRef) -> Grid | None:
        qparams = self.quantized.qparams.get(ref)
        whole = qparams is not None and qparams.scale.numel() == 1 and isinstance(qparams.spec.format, IntFormat)
        return grid_of(qparams) if qparams is not None and whole else None

    @property
    def _operands(self) -> Mapping[str, Mapping[str, torch.Tensor]]:
        return self.quantized.simulated_operands

    def _weight_noise(self, node: Node) -> float:
        if node.name not in self.quantized.plan.quantized:
            return 0.0
        values, names = self.captured.values, self.captured.value_refs
        return sum(
            _lost(values[names[ref]], self.quantized.simulated_values[names[ref]])
            for ref in node.tensors
            if ref in self.quantized.plan.weights
        )

    def _execute(self, inputs: Inputs, visit: Transform, state: dict[str, torch.Tensor]) -> Any:
        return self.quantized.run(*inputs.args, state=state, transform=visit, **inputs.kwargs)


class IntegerLink(SimulationLink):
    """The integer reference: layers computed from codes, rounded as a device does."""

    _runs_in_part = False  # layers find the codes of their operands where these were computed

    def __init__(
        self, quantized: QuantizedModel, name: str = "integer reference", *, arithmetic: Arithmetic = MLAS
    ) -> None:
        super().__init__(quantized, name)
        self._arithmetic = arithmetic

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """As its base; codes of given tensors are what the layers behind them compute from."""
        self._layers = IntegerLayers(quantized=self.quantized, arithmetic=self._arithmetic)
        return super().run(inputs, wanted=wanted, given=given, nudge=nudge)

    def _see(self) -> Callable[[TensorRef, torch.Tensor], torch.Tensor]:
        return self._layers

    def _take(self, ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
        if ref in self._layers.codes:
            self._layers.codes[ref] = quantize(tensor, self.quantized.qparams[ref]).numpy().astype(np.int64)
        return tensor


class EagerLink:
    """The user's own module, or any callable; inner tensors are what its leaf modules return.

    A module's result is the last operator of its call, by the names that capture gave.
    """

    takes_tensors = False
    replaced: Mapping[str, str] = {}

    def __init__(self, network: Callable[..., Any], graph: Graph | None = None, name: str = "eager") -> None:
        self.network, self.name = network, name
        self._graph = graph
        leaves = set(_leaf_paths(network))
        calls = dict(_last_of_calls(graph)) if graph is not None else {}
        self._results = {call: name for call, name in calls.items() if call[0] in leaves}

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """The results of leaf modules."""
        if self._graph is None:
            return {}
        leaves = set(self._results.values())
        return {name: each for name, each in graph_tensors(self._graph).items() if name in leaves}

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """Runs once, in eval mode, and leaves the module as it was; `given` is not obeyed."""
        found: dict[str, Array] = {}
        asked = frozenset(wanted)

        def keep(path: str, call: int, result: Any) -> None:
            name = self._results.get((path, call))
            if name in asked and isinstance(result, torch.Tensor):
                found[str(name)] = to_array(result)

        shaken = Nudge(on=nudge).inputs(inputs)
        args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (shaken.args, dict(shaken.kwargs)))
        try:
            with torch.no_grad(), _watched(self.network, keep if asked else None):
                self._remember(inputs.state)
                results = self.network(*args, **kwargs)
                after = self._remembered()
        except LinkError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise LinkError(f"{self.name}: {type(error).__name__}: {' '.join(str(error).split())[:400]}") from error
        return Recording(outputs=named_outputs(results), tensors=found, state=after)

    def _remember(self, state: Mapping[str, Array]) -> None:
        buffers = dict(self.network.named_buffers()) if isinstance(self.network, torch.nn.Module) else {}
        for name, value in state.items():
            if name not in buffers:
                raise LinkError(
                    f"{self.name}: has no buffer {name!r} to remember in; its buffers: {', '.join(buffers)}"
                )
            buffers[name].copy_(torch.from_numpy(np.array(value)))

    def _remembered(self) -> dict[str, Array]:
        """The buffers that the captured network says `forward` changes; none where it was not captured."""
        if self._graph is None or not isinstance(self.network, torch.nn.Module):
            return {}
        buffers = dict(self.network.named_buffers())
        names = [value_name(before) for before, _ in self._graph.state]
        return {name: to_array(buffers[name]) for name in names if name in buffers}


def _states(captured: CapturedModel) -> Iterator[tuple[TensorRef, str]]:
    """What a network remembers, and its placeholder."""
    yield from ((ref, captured.value_refs[ref]) for ref, _ in captured.graph.state)


@contextmanager
def _watched(network: Callable[..., Any], keep: Callable[[str, int, Any], None] | None) -> Iterator[None]:
    if not isinstance(network, torch.nn.Module):
        yield
        return
    calls: Counter[str] = Counter()
    handles = []
    for path in _leaf_paths(network) if keep is not None else ():

        def note(_: Any, __: Any, result: Any, path: str = path, keep: Any = keep) -> None:
            keep(path, calls[path], result)
            calls[path] += 1

        handles.append(network.get_submodule(path).register_forward_hook(note))
    try:
        with preserved(network):
            network.eval()
            yield
    finally:
        for handle in handles:
            handle.remove()


def _leaf_paths(network: Callable[..., Any]) -> Iterator[str]:
    if isinstance(network, torch.nn.Module):
        yield from (path for path, module in network.named_modules() if path and not any(module.children()))


def _last_of_calls(graph: Graph) -> Iterator[tuple[tuple[str, int], str]]:
    for node in graph.nodes:
        if len(node.outputs) == 1:
            yield (node.module_path, node.outputs[0].call_index), value_name(node.outputs[0])


def _lost(exact: torch.Tensor, rounded: torch.Tensor) -> float:
    """The power of a difference, of the power of what it should be."""
    power = float(exact.double().square().sum())
    return float((exact.double() - rounded).square().sum()) / power if power > 0 else 0.0


def graph_tensors(
    graph: Graph,
    grid: Callable[[TensorRef], Grid | None] = lambda ref: None,
    weight_noise: Callable[[Node], float] = lambda node: 0.0,
) -> dict[str, LinkTensor]:
    """Inputs and results of operators, in the order of the network."""
    found = {}
    for ref in graph.inputs:
        found[value_name(ref)] = LinkTensor(name=value_name(ref), shape=graph.tensors[ref].shape, grid=grid(ref))
    for node in graph.nodes:
        for ref in node.outputs:
            found[value_name(ref)] = LinkTensor(
                name=value_name(ref),
                op=node.op,
                reads=tuple(value_name(each) for each in node.tensors if not graph.is_constant(each)),
                shape=graph.tensors[ref].shape,
                grid=grid(ref),
                rounding=rounding_of(graph, node),
                weight_noise=weight_noise(node),
                module_path=node.module_path,
                source=str(node.source or ""),
            )
    return found
