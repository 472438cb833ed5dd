"""Number formats that a search may give to a part of a network, as exceptions to the target's scheme.

Whether the accelerator computes in them is not decided here: the linter reads the plan that comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bitwright.hw_constraints.target_types import Target
from bitwright.quant.formats import FORMATS, IntFormat
from bitwright.quant.scheme import Override, QParamsSpec, QuantScheme

# 7 bits where sums of 8-bit products would saturate; see the target.
_EIGHT_BIT_WEIGHTS = ("int8", "int7")
_EIGHT_BIT_ACTIVATIONS = ("uint8", "int8")


@dataclass(frozen=True, kw_only=True)
class BlockFormat:
    """Weights and activations of a block; of several names the first that the target permits is meant.

    Both empty: the block stays in float.
    """

    weights: tuple[str, ...] = ()
    activations: tuple[str, ...] = ()


BLOCK_FORMATS: Mapping[str, BlockFormat] = {
    "int4": BlockFormat(weights=("int4",), activations=_EIGHT_BIT_ACTIVATIONS),
    "int8": BlockFormat(weights=_EIGHT_BIT_WEIGHTS, activations=_EIGHT_BIT_ACTIVATIONS),
    "int16": BlockFormat(weights=_EIGHT_BIT_WEIGHTS, activations=("int16",)),
    "fp8": BlockFormat(weights=("float8_e4m3fn",), activations=("float8_e4m3fn",)),
    "float32": BlockFormat(),
}


def apply_block_formats(scheme: QuantScheme, target: Target, formats: Mapping[str, str]) -> QuantScheme:
    """The scheme with an exception for each module glob whose format is not the scheme's own.

    Args:
        scheme: what the rest of the network keeps.
        target: gives its own way of keeping a format (granularity, symmetry) where it permits it.
        formats: names of `BLOCK_FORMATS` by module glob.
    """
    return scheme.with_overrides(
        *(
            override
            for module, name in formats.items()
            if (override := _override(module, name, scheme, target)) is not None
        )
    )


def _override(module: str, name: str, scheme: QuantScheme, target: Target) -> Override | None:
    asked, origin = BLOCK_FORMATS[name], f"the candidate's format {name}"
    if not asked.weights:
        return Override(module=module, keep_float=True, origin=origin)
    weights = _spec(asked.weights, scheme.weights, target.numerics.weights)
    activations = _spec(asked.activations, scheme.activations, target.numerics.activations)
    if (weights, activations) == (scheme.weights, scheme.activations):
        return None
    return Override(module=module, weights=weights, activations=activations, origin=origin)


def _spec(names: Sequence[str], own: QParamsSpec, permitted: Sequence[QParamsSpec]) -> QParamsSpec:
    """The scheme's own spec, else the target's, else the scheme's with another format, for the linter to refuse."""
    for spec in (own, *permitted):
        if spec.format.name in names:
            return spec
    fmt = FORMATS[names[0]]
    # Signed integers are symmetric in every format of this table, and floats have no zero point.
    symmetric = not isinstance(fmt, IntFormat) or fmt.signed or own.symmetric
    return replace(own, format=fmt, symmetric=symmetric)
