"""A quantizer for torchao's `prepare_pt2e` that annotates a program by a `QuantScheme`.

    quantizer = SchemeQuantizer(load_target("arm-xnnpack").scheme())
    prepared = prepare_pt2e(torch.export.export(model, args).module(), quantizer)
    ...                                      # calibrate
    converted = convert_pt2e(prepared)       # or ExecuTorch's own next steps

XNNPACK's delegate in ExecuTorch rounds biases itself and has no linear layer that reads codes and writes real values:
`replace(scheme, bias=BiasKind.FLOAT32, quantize_outputs=True)` lets it take the whole network. litert-torch rounds
biases itself, too:

    scheme = replace(load_target("ethos-u85-1024").scheme(), bias=BiasKind.FLOAT32)
    ...
    converted = convert_pt2e(prepared, fold_quantize=False)
    edge = litert_torch.convert(converted, args, quant_config=QuantConfig(pt2e_quantizer=quantizer))

What is quantized, who shares scale and zero point and how ranges are chosen is the plan's and our observers'; what is
done to weights and biases beyond that (equalization, rounding, bias correction) is `quant.ptq.quantize`'s alone.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.fx

from bitwright.quant.errors import InputError, MissingExtraError
from bitwright.quant.export.exporter import described
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Node, TensorRef
from bitwright.quant.operand_axes import weight_axis
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme, ScaleKind
from bitwright.quant.torchao.program import Program, read_program

try:
    from torchao.quantization.pt2e.quantizer import (
        DerivedQuantizationSpec,
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
        SharedQuantizationSpec,
    )
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    from bitwright.quant.torchao.observers import ActivationObserver, WeightObserver, scheme_of, storage
except ImportError:
    raise MissingExtraError("a quantizer for torchao's flow", "torchao") from None

_INT32 = torch.iinfo(torch.int32)


class SchemeQuantizer(Quantizer):  # type: ignore[misc]  # torchao has no types
    """Annotates a program as `plan` decides.

    Attributes:
        scheme: what is quantized, and how.
        decided: the plan of the program that was annotated last; `decided.kept_float` tells what stays in float, and
            why.
        global_config: litert-torch asks it whether scales follow the data; those that do are refused.
    """

    global_config: ClassVar[Any] = SimpleNamespace(is_dynamic=False)

    def __init__(self, scheme: QuantScheme) -> None:
        super().__init__()
        self.scheme = scheme
        self.decided: QuantPlan | None = None

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Writes the plan onto the nodes of a program.

        Raises:
            InputError: a format, granularity or scale that torchao's annotations have no words for.
        """
        program = read_program(model)
        self.decided = plan(program.graph, self.scheme)
        _Annotator(program, self.decided).annotate()
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        """Nothing is left to check: what cannot be said was refused."""


class _Annotator:
    def __init__(self, program: Program, decided: QuantPlan) -> None:
        self.graph, self.nodes, self.by_name = program.graph, program.nodes, program.by_name
        self.plan = decided
        self.annotations: dict[torch.fx.Node, QuantizationAnnotation] = {}

    def annotate(self) -> None:
        for ref, spec in (*self.plan.activations.items(), *self.plan.weights.items()):
            if why := unsaid(spec):
                raise InputError(f"{described(self.graph, ref)}: {why}, which torchao's pt2e cannot say")
        self._annotate_results()
        for node in self.graph.nodes:
            if node.name in self.plan.quantized:
                self._annotate_operands(node)
        for made, annotation in self.annotations.items():
            annotation._annotated = True
            made.meta[Q_ANNOTATION_KEY] = annotation

    def _of(self, node: torch.fx.Node) -> QuantizationAnnotation:
        return self.annotations.setdefault(node, QuantizationAnnotation(allow_implicit_sharing=False))

    def _annotate_results(self) -> None:
        """The first tensor of a group has the observer, the others share it."""
        order = {ref: position for position, ref in enumerate(self.nodes)}
        first: dict[TensorRef, TensorRef] = {}
        for group in self.plan.groups:
            members = sorted((ref for ref in group if ref in self.plan.activations), key=order.__getitem__)
            first.update(dict.fromkeys(members, members[0]))
        for ref, spec in self.plan.activations.items():
            lead = first.get(ref, ref)
            own = _activation(spec) if lead == ref else SharedQuantizationSpec(self.nodes[lead])
            self._of(self.nodes[ref]).output_qspec = own

    def _annotate_operands(self, node: Node) -> None:
        reader = self.by_name[node.name]
        operands = self._of(reader).input_qspec_map
        bias = self.plan.biases.get(node.name)
        for ref in node.tensors:
            if ref in self.plan.activations:
                operands[self.nodes[ref]] = SharedQuantizationSpec(self.nodes[ref])
            elif ref in self.plan.weights:
                operands[self.nodes[ref]] = self._weight(ref)
            elif bias is not None and ref == bias.bias:
                edges = [(self.nodes[part], reader) for part in (bias.input, bias.weight)]
                operands[self.nodes[ref]] = self._bias(edges, self.plan.weights[bias.weight])

    def _weight(self, ref: TensorRef) -> QuantizationSpec:
        spec = self.plan.weights[ref]
        in_channels = spec.granularity is Granularity.PER_CHANNEL
        axis = weight_axis(self.graph, ref) if in_channels else None
        return _specified(spec, axis, WeightObserver.with_args(spec=spec, axis=axis))

    def _bias(self, edges: list[Any], weight: QParamsSpec) -> DerivedQuantizationSpec:
        in_channels = weight.granularity is Granularity.PER_CHANNEL
        return DerivedQuantizationSpec(
            derived_from=edges,
            derive_qparams_fn=_product_of_scales,
            dtype=torch.int32,
            quant_min=_INT32.min,
            quant_max=_INT32.max,
            qscheme=torch.per_channel_symmetric if in_channels else torch.per_tensor_symmetric,
            ch_axis=0 if in_channels else None,
        )


def unsaid(spec: QParamsSpec) -> str | None:
    """What of a spec torchao's annotations have no words for; None when they can say it all."""
    if not isinstance(spec.format, IntFormat) or spec.format.bits > 16:
        return f"format {spec.format.name}"
    if spec.block_size is not None:
        return f"a scale for each block of {spec.block_size}"
    if spec.dynamic:
        return "a scale that follows the data by rules of ours"
    if spec.scale_kind not in (ScaleKind.FLOAT32, ScaleKind.POWER_OF_TWO):
        return f"scales of kind {spec.scale_kind}"
    return None


def _activation(spec: QParamsSpec) -> QuantizationSpec:
    return _specified(spec, None, ActivationObserver.with_args(spec=spec))


def _specified(spec: QParamsSpec, axis: int | None, make: Any) -> QuantizationSpec:
    low, high = spec.code_range
    return QuantizationSpec(
        dtype=storage(spec),
        observer_or_fake_quant_ctr=make,
        quant_min=low,
        quant_max=high,
        qscheme=scheme_of(spec, axis),
        ch_axis=axis,
    )


def _product_of_scales(observers: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale of an int32 bias: scale(input) * scale(weight), zero point 0."""
    (data, _), (weight, _) = (each.calculate_qparams() for each in observers)
    scale = data * weight
    return scale, torch.zeros_like(scale, dtype=torch.int64)
