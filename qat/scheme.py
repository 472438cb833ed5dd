"""The scheme that training follows: a target's or the user's own, in other number formats if asked."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from bitwright.quant.errors import InputError
from bitwright.quant.formats import get_format
from bitwright.quant.scheme import QParamsSpec, QuantScheme


def with_formats(scheme: QuantScheme, *, weights: str | None = None, activations: str | None = None) -> QuantScheme:
    """The scheme with other number formats.

    Weights then start from the scale of least squared error: below 8 bits the whole range is far from it.

    Raises:
        InputError: there is no such format.
    """

    def changed(spec: QParamsSpec, name: str, observer: str) -> QParamsSpec:
        try:
            return replace(spec, format=get_format(name), observer=observer)
        except ValueError as error:
            raise InputError(str(error)) from error

    if weights is not None:
        own = {op: changed(spec, weights, "mse") for op, spec in scheme.operator_weights.items()}
        scheme = replace(
            scheme, weights=changed(scheme.weights, weights, "mse"), operator_weights=MappingProxyType(own)
        )
    if activations is not None:
        scheme = replace(scheme, activations=changed(scheme.activations, activations, scheme.activations.observer))
    return scheme
