"""A number format that a part of a network may get, as an exception to the scheme of the whole."""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.quant.scheme import Override, QParamsSpec


@dataclass(frozen=True, kw_only=True)
class LayerFormat:
    """One choice.

    Attributes:
        name: as results and messages call it (`int8`, `int4`, `float32`).
        weights: of the layers; None keeps the scheme's.
        activations: of their results; None keeps the scheme's.
        is_float: the layers stay in float.
    """

    name: str
    weights: QParamsSpec | None = None
    activations: QParamsSpec | None = None
    is_float: bool = False

    @property
    def is_own(self) -> bool:
        """Whether it is what the scheme says anyway."""
        return not (self.is_float or self.weights or self.activations)

    def override(self, module: str) -> Override:
        """The exception for the modules that a glob selects."""
        origin = f"mixed precision: {self.name}"
        if self.is_float:
            return Override(module=module, keep_float=True, origin=origin)
        return Override(module=module, weights=self.weights, activations=self.activations, origin=origin)


FLOAT = LayerFormat(name="float32", is_float=True)
