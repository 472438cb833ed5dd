"""How a scale comes to its value while a network trains."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType

from bitwright.quant.errors import InputError
from bitwright.quant.formats import is_unscaled_float
from bitwright.quant.scheme import QParamsSpec, QuantScheme, ScaleKind


class Method(StrEnum):
    """What trains scales; each with straight-through rounding and the gradient clipped where values are.

    Scales of MX and NVFP4 are defined by what is in their block, and dynamic ones by their tensor: these follow the
    data whatever the method.
    """

    RANGES = "ranges"  # not trained: moving ranges of activations, the extremes of weights
    LSQ = "lsq"  # Esser et al. 2020, Learned Step Size Quantization; steps are shares of the scale
    LSQ_LINEAR = "lsq_linear"  # the same in the scale itself, as published
    LSQ_PLUS = "lsq+"  # Bhalgat et al. 2020, LSQ+: the offset of asymmetric activations learns, too
    PACT = "pact"  # Choi et al. 2018: activations' thresholds learn from clipped values alone; weights as in RANGES
    TQT = "tqt"  # Jain et al. 2020, Trained Quantization Thresholds: powers of two, log2 of the threshold learns


def method_named(name: str) -> Method:
    """The method of a name.

    Raises:
        InputError: there is none.
    """
    try:
        return Method(name)
    except ValueError as error:
        raise InputError(f"method = {name!r}; there are: {', '.join(Method)}") from error


def learns(method: Method, spec: QParamsSpec, *, weight: bool) -> bool:
    """Whether a tensor's scale is trained.

    Args:
        method: of the network.
        spec: of the tensor.
        weight: whether it is a weight.
    """
    by_definition = spec.dynamic or spec.scale_kind not in (ScaleKind.FLOAT32, ScaleKind.POWER_OF_TWO)
    if by_definition or is_unscaled_float(spec.format):
        return False
    return method is not Method.RANGES and not (weight and method is Method.PACT)


def scheme_of(method: Method, scheme: QuantScheme) -> QuantScheme:
    """The scheme with the scales that a method trains: powers of two for TQT, and the scheme's own otherwise."""
    if method is not Method.TQT:
        return scheme
    overrides = tuple(
        replace(
            each,
            activations=each.activations and _power_of_two(each.activations),
            weights=each.weights and _power_of_two(each.weights),
        )
        for each in scheme.overrides
    )
    return replace(
        scheme,
        activations=_power_of_two(scheme.activations),
        weights=_power_of_two(scheme.weights),
        operator_weights=MappingProxyType({op: _power_of_two(spec) for op, spec in scheme.operator_weights.items()}),
        overrides=overrides,
    )


def _power_of_two(spec: QParamsSpec) -> QParamsSpec:
    return replace(spec, scale_kind=ScaleKind.POWER_OF_TWO) if spec.scale_kind is ScaleKind.FLOAT32 else spec
