"""Inputs for a network that nobody gave any for.

Python 3.8 and NumPy alone: the runner on a device makes its inputs up with this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


class _Input(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int | None, ...] | None: ...


class _TakesInputs(Protocol):
    @property
    def input_infos(self) -> Sequence[_Input]: ...


def made_up_inputs(session: _TakesInputs, name: str, seed: int) -> dict[str, npt.NDArray[Any]]:
    """Standard normal numbers, as codes where the input takes codes; a first dimension that is not static becomes 1.

    Args:
        session: a loaded artefact, such as a backend's `Session`.
        name: of the candidate, for messages.
        seed: of the numbers.

    Raises:
        InputError: an input is neither floating point nor quantized, or another dimension is not static.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    batch = {}
    for spec in session.input_infos:
        scale = getattr(spec, "scale", None)
        is_number = spec.dtype.startswith("float") or scale is not None
        if spec.shape is None or None in spec.shape[1:] or not is_number:
            raise InputError(f"{name}: input {spec.name!r} is {spec.dtype} of shape {spec.shape}: give inputs for it")
        numbers = generator.standard_normal([dim or 1 for dim in spec.shape])
        if scale is not None:
            limits = np.iinfo(spec.dtype)
            numbers = np.clip(np.rint(numbers / scale) + getattr(spec, "zero_point", 0), limits.min, limits.max)
        batch[spec.name] = numbers.astype(spec.dtype)
    return batch
