"""From a plan and its calibrated qparams to the parts that are put into the user's module tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bitwright.qat.call_sites import Rewrite, Site, Tap
from bitwright.qat.entries import Entry
from bitwright.qat.layers import FoldedWeight, RoundedBias, RoundedConstant, in_place_class
from bitwright.qat.locate import FunctionCall, Request, calls_of, describe, locate, module_of
from bitwright.qat.methods import Method
from bitwright.qat.quantizer import DynamicQuantizer, Quantizer, Quantizers
from bitwright.qat.replay import Layer, Parts
from bitwright.qat.written_out import Part, WrittenOut, written_out
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Node, TensorRef
from bitwright.quant.operand_axes import weight_axis
from bitwright.quant.plan import QuantPlan
from bitwright.quant.qparams import QParams

# Every element of their results is an element of their operands: on the same grid already, so rounding it again
# would change nothing. Padding counts, too, when it pads with zero.
_MOVES = frozenset(
    """
    cat stack view reshape flatten unflatten squeeze unsqueeze permute transpose expand repeat slice select split
    split_with_sizes chunk unbind flip index_select roll pixel_shuffle pixel_unshuffle upsample_nearest2d max_pool1d
    max_pool2d max_pool3d amax amin maximum minimum reflection_pad1d reflection_pad2d replication_pad2d _unsafe_view
    """.split()  # noqa: SIM905 - a list of forty strings is harder to read
)


def prepare(
    model: nn.Module,
    captured: CapturedModel,
    folded: CapturedModel,
    plan: QuantPlan,
    qparams: Mapping[TensorRef, QParams],
    args: tuple[Any, ...],
    *,
    dynamic: Mapping[TensorRef, DynamicQParams],
    method: Method,
    tap: Tap,
) -> Parts:
    """Finds each tensor of the plan in the user's module tree and makes its quantizer.

    Args:
        model: the user's module, or a region of it, in float; not changed.
        captured: the same in eval mode.
        folded: the same as `fit_scheme` makes it, for which the plan was made.
        plan: what is quantized, and how.
        qparams: where the scales start, for every tensor of the plan whose scale is its own.
        args: the example arguments.
        dynamic: how the others take theirs from the data.
        method: how the scales are trained.
        tap: whom the sites hand their results to.

    Raises:
        InputError: something that cannot be replayed eagerly, with the source line.
    """
    return _Preparation(model, captured, folded, plan, qparams, dynamic, method, tap).parts(args)


class _Preparation:
    def __init__(
        self,
        model: nn.Module,
        captured: CapturedModel,
        folded: CapturedModel,
        plan: QuantPlan,
        qparams: Mapping[TensorRef, QParams],
        dynamic: Mapping[TensorRef, DynamicQParams],
        method: Method,
        tap: Tap,
    ) -> None:
        self.model, self.captured, self.folded, self.plan = model, captured, folded, plan
        self.qparams, self.method = qparams, method
        self.buffers = {name for name, _ in model.named_buffers()}
        self.quantizers, self.tap = Quantizers(), tap
        self.graph = folded.graph
        # The tensor of the unfolded graph that each folded layer's result was: its batch norm's.
        self.unfolded = {after: before for before, after in folded.replaced.items()}
        self.dynamic = {ref: self.quantizers.add_dynamic(ref, DynamicQuantizer(rule)) for ref, rule in dynamic.items()}
        self.by_ref = self._activation_quantizers()
        self.read: dict[TensorRef, Rewrite] = {}

    def parts(self, args: tuple[Any, ...]) -> Parts:
        """See `prepare`."""
        if any(self._is_rounded(before) for before, _ in self.graph.state):
            names = [str(before) for before, _ in self.graph.state]
            raise InputError(
                f"forward keeps state in {names} that the plan quantizes, which cannot be trained yet; "
                "quantize after training, or keep the modules that read it in float by an override"
            )
        layers = self._layers(args)
        written = written_out(self.captured, self.folded, describe, self._part)
        requests = {request.node.name: request for request in self._requests(set(layers), written)}
        found = locate(self.model, self.captured, list(requests.values()), args)
        sites, operands, calls = [], [], []
        for name, location in found.items():
            node = requests[name].node
            if name in written:
                assert isinstance(location, FunctionCall)  # it was asked for as one
                calls.append((location, written[name]))
                continue
            if not self._is_move(node):
                results = (self._site(self._folded_ref(ref)) for ref in node.outputs)
                sites += [(location, site) for site in results if site is not None]
            for ref in requests[name].constants:
                assert isinstance(location, FunctionCall)  # locate finds constants in calls only
                operands.append((location, ref, self._constant(ref, node)))
        return Parts(
            layers=tuple({id(layer.module): layer for layer in layers.values()}.values()),
            sites=tuple(sites),
            operands=tuple(operands),
            written_out=tuple(calls),
            entries=(Entry(self.model, tuple(self._site(ref) for ref in self.graph.inputs)),),
            by_ref=self.by_ref,
            dynamic=self.dynamic,
            quantizers=self.quantizers,
            tap=self.tap,
        )

    # --- quantizers ---

    def _activation_quantizers(self) -> dict[TensorRef, Quantizer]:
        """One for each activation; tensors of a group share theirs, constants among them."""
        table: dict[TensorRef, Quantizer] = {}
        single = [frozenset([ref]) for ref in self.plan.activations if ref not in self.dynamic]
        groups = [*self.plan.groups, *single]
        for group in groups:
            new = [ref for ref in sorted(group) if ref not in table]
            if new:
                made = self._made(new[0])
                table.update(dict.fromkeys(new, self.quantizers.add(new[0], made)))
        return table

    def _made(self, ref: TensorRef, *, weight: bool = False) -> Quantizer:
        # A buffer, such as a running mean beside which no layer could be folded, has no gradient to give its scale.
        method = Method.RANGES if str(ref) in self.buffers else self.method
        try:
            return Quantizer(self.qparams[ref], method=method, weight=weight)
        except ValueError as error:
            raise InputError(f"tensor {ref}: {error}") from error

    def _site(self, ref: TensorRef) -> Site | None:
        quantizer = self.dynamic[ref] if ref in self.dynamic else self.by_ref.get(ref)
        return None if quantizer is None else Site(ref, quantizer, self.tap)

    def _is_rounded(self, ref: TensorRef | None) -> bool:
        return ref in self.by_ref or ref in self.dynamic

    def _constant(self, ref: TensorRef, node: Node) -> Rewrite:
        """What a call reads in place of a parameter: a weight or constant on its grid, a bias as int32."""
        bias = self.plan.biases.get(node.name)
        if bias is not None and bias.bias == ref:
            return RoundedBias(self.by_ref[bias.input], self._weight_quantizer(bias.weight))
        return RoundedConstant(self._weight_quantizer(ref))

    def _weight_quantizer(self, ref: TensorRef) -> Quantizer:
        if ref not in self.by_ref:
            made = self._made(ref, weight=True)
            self.by_ref[ref] = self.quantizers.add(ref, made)
        return self.by_ref[ref]

    # --- layers ---

    def _layers(self, args: tuple[Any, ...]) -> dict[str, Layer]:
        """Layers that are swapped in place, by node name; several calls of one module share its layer."""
        by_module: dict[nn.Module, Layer] = {}
        table: dict[str, Layer] = {}
        for node in self.graph.nodes:
            _, position, bias_position = self.graph.layer_positions(node)
            weight = node.inputs[position] if self.graph.macs(node) and position < len(node.inputs) else None
            norm = self._norm_behind(node)
            if weight is None or not (weight in self.plan.weights or norm is not None):
                continue
            module = module_of(self.model, node)
            if in_place_class(module) is None or not self._computes_with(module, weight):
                if norm is not None:
                    raise InputError(
                        f"{describe(node)} is followed by a batch norm but is no layer of torch.nn; "
                        "train it with the batch norm folded, or keep the two in float by an override"
                    )
                continue
            if module not in by_module:
                bias = node.inputs[bias_position] if bias_position < len(node.inputs) else None
                folded = self._folded_weight(module, weight, norm)
                by_module[module] = Layer(module=module, folded=folded, weight=weight, bias=bias)
            table[node.name] = by_module[module]
        self._find_inputs(table, args)
        return table

    def _find_inputs(self, layers: Mapping[str, Layer], args: tuple[Any, ...]) -> None:
        """Where biases are int32, the quantizer of the input of each call that a layer has in the user's module.

        A call that computes from constants alone, such as a first state of zeros, is no node of the graph: its bias
        stays in float, as in the constant that the capture made of it.
        """
        calls = calls_of(self.model, [layer.module for layer in layers.values()], args)
        for layer in layers.values():
            layer.folded.inputs = [None] * calls[layer.module]
        for name, bias in self.plan.biases.items():
            if name in layers:
                call = self.graph.by_name[name].outputs[0].call_index
                layers[name].folded.inputs[call] = self.by_ref[bias.input]

    def _folded_weight(self, module: nn.Module, weight: TensorRef, norm: _BatchNorm | None) -> FoldedWeight:
        axis = weight_axis(self.graph, weight)
        folded = FoldedWeight(module, self.qparams.get(weight), norm, axis=axis, method=self.method)
        if weight in self.by_ref:  # layers with a weight in common have its scale in common
            folded.quantizer = self.by_ref[weight]
        elif folded.quantizer is not None:
            self.by_ref[weight] = self.quantizers.add(weight, folded.quantizer)
        return folded

    def _norm_behind(self, node: Node) -> _BatchNorm | None:
        """The batch norm that was folded into a layer."""
        if not node.outputs or node.outputs[0] not in self.unfolded:
            return None
        norm = self.captured.graph.producers[self.unfolded[node.outputs[0]]]
        if norm.op != "batch_norm":
            return None
        module = module_of(self.model, norm)
        if not isinstance(module, _BatchNorm) or type(module).forward is not _BatchNorm.forward:
            raise InputError(
                f"{describe(norm)} is no batch norm module of torch.nn; only those can be folded in training"
            )
        return module

    def _computes_with(self, module: nn.Module, weight: TensorRef) -> bool:
        own = getattr(module, "weight", None)
        if not isinstance(own, torch.Tensor) or weight not in self.captured.value_refs:
            return False
        return torch.equal(own.detach(), self.captured.values[self.captured.value_refs[weight]])

    # --- what is to be found ---

    def _requests(self, layers: set[str], written: Mapping[str, WrittenOut]) -> list[Request]:
        """Nodes of the unfolded graph whose result is rounded, or that read rounded constants by themselves."""
        requests = []
        for node in self.captured.graph.nodes:
            if node.name in written:
                requests.append(Request(node=node, is_call=True))
                continue
            folded = self.graph.by_name.get(node.name)
            constants = self._constants(folded) if folded is not None and node.name not in layers else ()
            own = [ref for ref in node.outputs if ref not in self.folded.replaced.values()]
            rounds = any(self._is_rounded(self._folded_ref(ref)) for ref in own)
            if (rounds and not self._is_move(node)) or constants:
                several = len(node.outputs) > 1
                requests.append(Request(node=node, constants=constants, is_call=several))
        return requests

    def _part(self, node: Node, target: Any) -> Part:
        """An operator that the user's module does not call by itself."""
        constants = self._constants(node)
        operands = {place: self._read(ref, node) for place, ref in enumerate(node.tensors) if ref in constants}
        sites = tuple(None if self._is_move(node) else self._site(ref) for ref in node.outputs)
        return Part(target=target, operands=operands, results=sites)

    def _read(self, ref: TensorRef, node: Node) -> Rewrite:
        """A constant as a node of a written-out call reads it, the same object where several read the same."""
        made = self._constant(ref, node)
        return self.read.setdefault(ref, made) if isinstance(made, RoundedConstant) else made

    def _constants(self, node: Node) -> tuple[TensorRef, ...]:
        if node.name not in self.plan.quantized:
            return ()
        bias = self.plan.biases.get(node.name)
        return tuple(ref for ref in node.tensors if ref in self.plan.weights or (bias and bias.bias == ref))

    def _folded_ref(self, ref: TensorRef) -> TensorRef:
        return self.folded.replaced.get(ref, ref)

    def _is_move(self, node: Node) -> bool:
        """Whether a node hands on codes of the very grid that its result has."""
        moves = node.op in _MOVES or (node.op in ("constant_pad_nd", "pad") and not node.attributes.get("value"))
        before, after = self.captured.graph.tensors, self.graph.tensors
        operands = [ref for ref in node.tensors if (before.get(ref) or after[ref]).is_floating]
        first, *others = (self.by_ref.get(self._folded_ref(ref)) for ref in (*node.outputs, *operands))
        return moves and first is not None and all(each is first for each in others)
