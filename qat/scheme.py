"""The scheme that training follows: a target's or the user's own, in other number formats if asked."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from bitwright.quant.errors import InputError
from bitwright.quant.formats import get_format
from bitwright.quant.scheme import Override, QParamsSpec, QuantScheme


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


@dataclass(frozen=True, kw_only=True)
class _SchemeWithin(QuantScheme):
    """A scheme for a region, whose operators know their modules by their paths in it."""

    path: str

    def override_for(self, *, module_path: str, operator: str) -> Override | None:
        return super().override_for(module_path=f"{self.path}.{module_path}".rstrip("."), operator=operator)


def within(scheme: QuantScheme, path: str) -> QuantScheme:
    """The scheme as a region sees it, whose operators know their modules by their paths in it."""
    if not path or not scheme.overrides:
        return scheme
    return _SchemeWithin(**{each.name: getattr(scheme, each.name) for each in fields(QuantScheme)}, path=path)
