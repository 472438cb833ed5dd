"""A model that torchao's `quantize_` has converted, as one of our quantized networks: the same codes and scales.

torchao keeps such a weight as a tensor of its own kind: codes (`qdata`), `scale`, perhaps `zero_point`, and the
`block_size` that shares a scale, one number for each axis. Weights alone are in codes; where torchao takes scales of
activations from the data, one for each row, so does the plan here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from bitwright.quant.capture import capture
from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import quantize
from bitwright.quant.formats import FORMATS, NumberFormat
from bitwright.quant.plan import plan
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import BiasKind, Granularity, Override, QParamsSpec, QuantScheme

_LAYERS = frozenset({"linear", "embedding"})
# One scale for each row: the length of its block is that of the row, which the plan does not ask for.
_DYNAMIC = QParamsSpec(
    format=FORMATS["int8"], symmetric=True, granularity=Granularity.PER_BLOCK, block_size=2, dynamic=True
)


@dataclass(frozen=True, kw_only=True)
class ConvertedWeight:
    """One weight of torchao's.

    Attributes:
        qparams: ours for the same codes.
        values: float32, what the codes stand for.
        dynamic: whether its layer's activations are int8 with a scale for each row.
    """

    qparams: QParams
    values: torch.Tensor
    dynamic: bool


def import_weights(model: torch.nn.Module, args: tuple[Any, ...]) -> QuantizedModel:
    """Captures a model with torchao's weights; the model is afterwards what it was.

    Args:
        model: converted by `torchao.quantization.quantize_`.
        args: arguments of one run.

    Raises:
        InputError: no such weight, or one whose codes ours cannot hold; named with its kind.
    """
    weights = converted_weights(model)
    if not weights:
        raise InputError("the model has no weight of torchao's; convert it with torchao.quantization.quantize_ first")
    with _in_float(model, weights):
        captured = capture(model, args)
    dynamic = {each.dynamic for each in weights.values()}
    if len(dynamic) > 1:
        raise InputError("some layers have activations in int8 and others not; convert them in two models")
    decided = plan(captured.graph, _scheme(model, weights, dynamic=dynamic == {True}))
    qparams = {ref: weights[ref.module_path].qparams for ref in decided.weights if ref.module_path in weights}
    decided = replace(decided, weights={ref: each.spec for ref, each in qparams.items()})
    if dynamic != {True}:
        return QuantizedModel(captured=captured, plan=decided, qparams=qparams)
    rows = {ref: int(captured.graph.tensors[ref].shape[-1] or 0) for ref in decided.activations}
    specs = {ref: replace(_DYNAMIC, block_size=length) for ref, length in rows.items()}
    scales = {
        ref: DynamicQParams(spec=spec, axis=len(captured.graph.tensors[ref].shape) - 1) for ref, spec in specs.items()
    }
    return QuantizedModel(captured=captured, plan=replace(decided, activations=specs), qparams=qparams, dynamic=scales)


def converted_weights(model: torch.nn.Module) -> dict[str, ConvertedWeight]:
    """Every parameter that is a tensor of torchao's, by its path.

    Raises:
        InputError: one whose codes ours cannot hold.
    """
    return {
        name: _read(name, parameter)
        for name, parameter in model.named_parameters()
        if type(parameter.data).__module__.startswith("torchao") or hasattr(parameter, "qdata")
    }


def _read(name: str, weight: Any) -> ConvertedWeight:
    kind = type(weight.data).__name__
    if (
        not all(hasattr(weight, part) for part in ("qdata", "scale", "block_size"))
        or weight.qdata.shape != weight.shape
    ):
        raise InputError(
            f"{name}: {kind} packs its codes; convert with IntxWeightOnlyConfig, which does not, or quantize the model "
            "before conversion by configs.scheme_of(config)"
        )
    codes, values = weight.qdata, weight.dequantize().float()
    zero_point = getattr(weight, "zero_point", None)
    symmetric = zero_point is None or not bool(zero_point.any())
    qparams = _qparams(name, weight, _format(name, weight), symmetric)
    ours = quantize(values, qparams)
    if not torch.equal(ours.float(), codes.float()):
        raise InputError(f"{name}: {kind} holds codes that its scales do not give back; ours would differ")
    is_dynamic = any(getattr(weight, part, None) for part in ("act_quant_kwargs", "activation_quantization"))
    return ConvertedWeight(qparams=qparams, values=values, dynamic=is_dynamic)


def _format(name: str, weight: Any) -> NumberFormat:
    own = str(getattr(weight, "target_dtype", weight.qdata.dtype)).removeprefix("torch.")
    if own not in FORMATS:
        raise InputError(f"{name}: codes of type {own}; there are: {', '.join(FORMATS)}")
    return FORMATS[own]


def _qparams(name: str, weight: Any, fmt: NumberFormat, symmetric: bool) -> QParams:
    """By the block that shares a scale: a whole tensor, a row, or a piece of one."""
    block, shape = list(weight.block_size), list(weight.shape)
    scale = weight.scale.float()
    zero_point = torch.zeros_like(scale) if symmetric else weight.zero_point.float().reshape(scale.shape)
    if block == shape:
        spec = QParamsSpec(format=fmt, symmetric=symmetric)
        return QParams(spec, scale.reshape(()), zero_point.reshape(()))
    if len(shape) != 2 or block[0] != 1:
        raise InputError(f"{name}: scales for blocks of {block}; there are whole tensors, rows and pieces of rows")
    if block[1] == shape[1]:
        spec = QParamsSpec(format=fmt, symmetric=symmetric, granularity=Granularity.PER_CHANNEL)
        return QParams(spec, scale.reshape(-1), zero_point.reshape(-1), 0)
    spec = QParamsSpec(format=fmt, symmetric=symmetric, granularity=Granularity.PER_BLOCK, block_size=int(block[1]))
    return QParams(spec, scale.reshape(shape[0], -1), zero_point.reshape(shape[0], -1), 1)


def _scheme(model: torch.nn.Module, weights: Mapping[str, ConvertedWeight], *, dynamic: bool) -> QuantScheme:
    """Layers with such weights in low precision, all others in float."""
    float32 = QParamsSpec(format=FORMATS["float32"], symmetric=True)
    return QuantScheme(
        name="torchao",
        activations=_DYNAMIC if dynamic else float32,
        weights=next(iter(weights.values())).qparams.spec,
        bias=BiasKind.FLOAT32,
        quantized_operators=_LAYERS,
        overrides=tuple(_plain(model, weights)),
    )


def _plain(model: torch.nn.Module, weights: Mapping[str, ConvertedWeight]) -> Sequence[Override]:
    """The layers whose weights torchao has left alone."""
    return [
        Override(module=path, keep_float=True, origin="torchao, which left its weight alone")
        for path, module in model.named_modules()
        if path and isinstance(module, torch.nn.Linear | torch.nn.Embedding) and f"{path}.weight" not in weights
    ]


@contextmanager
def _in_float(model: torch.nn.Module, weights: Mapping[str, ConvertedWeight]) -> Iterator[None]:
    """The same model with plain weights, for a while."""
    kept: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
    try:
        for name, each in weights.items():
            path, _, own = name.rpartition(".")
            module = model.get_submodule(path)
            kept.append((module, own, module._parameters[own]))  # type: ignore[arg-type]
            module._parameters[own] = torch.nn.Parameter(each.values, requires_grad=False)
        yield
    finally:
        for module, own, parameter in kept:
            module._parameters[own] = parameter
