"""How a file codes a tensor: the format, and the numbers that turn codes into real values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.formats import FORMATS, FloatFormat
from bitwright.quant.scheme import Granularity, QParamsSpec, ScaleKind

Array = npt.NDArray[Any]
_MX_BLOCK = 32  # OCP Microscaling Formats Specification 1.0, table 1: k


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportedQParams:
    """Scale and zero point as they stand in a file; `value = (code - zero_point) * scale`.

    Attributes:
        spec: format, symmetry and granularity, as a plan says them.
        scale: float32, `[]`, `[C]`, or one row for each block; None when it is computed while the network runs.
        zero_point: whole numbers as float32, shape of `scale`; None likewise.
        axis: the axis of channels, or that which is cut into blocks (`spec.block_size`); None per tensor.
        tensor_scale: float32 `[]`, the second level where scales of blocks are float8 codes themselves; else None.
    """

    spec: QParamsSpec
    scale: Array | None
    zero_point: Array | None
    axis: int | None = None
    tensor_scale: Array | None = None

    def same_numbers(self, other: ImportedQParams) -> bool:
        """Whether both code alike: codes can then be moved from one tensor to the other."""
        if self.scale is None or other.scale is None or self.zero_point is None or other.zero_point is None:
            return False
        alike = np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)
        return alike and self.spec.format == other.spec.format

    def transposed(self) -> ImportedQParams:
        """Those of the transposed matrix."""
        if self.axis is None:
            return self
        scale, zero_point = (None if each is None else each.T for each in (self.scale, self.zero_point))
        return replace(self, scale=scale, zero_point=zero_point, axis=1 - self.axis)

    def real_values(self, codes: Array) -> Array:
        """What the codes stand for, float32."""
        assert self.scale is not None and self.zero_point is not None
        scale, zero_point = self.scale, self.zero_point
        if self.axis is not None and self.spec.block_size is not None:
            size, block = codes.shape[self.axis], self.spec.block_size
            scale, zero_point = (
                np.take(np.repeat(each, block, self.axis), range(size), self.axis) for each in (scale, zero_point)
            )
        elif self.axis is not None:
            along = [1] * codes.ndim
            along[self.axis] = -1
            scale, zero_point = scale.reshape(along), zero_point.reshape(along)
        with np.errstate(over="ignore", invalid="ignore"):  # a scale that is no number is the file's
            return ((codes.astype(np.float32) - zero_point) * scale).astype(np.float32)


def qparams_of(
    dtype: str,
    scale: Array | None,
    zero_point: Array | None,
    axis: int | None = None,
    *,
    block: int | None = None,
    tensor_scale: Array | None = None,
) -> ImportedQParams | None:
    """Qparams in the vocabulary of plans; None for a type of codes that has no such format.

    Args:
        dtype: of the codes.
        scale: as in the file; None when it is computed from the data.
        zero_point: as in the file; None for 0, or when it is computed.
        axis: the axis of channels or blocks when there is more than one scale.
        block: the size of blocks along it.
        tensor_scale: what the scales of blocks are float8 codes of; None where they are numbers.
    """
    fmt = FORMATS.get(dtype)
    if fmt is None:
        return None
    known = scale is not None
    scales = np.asarray(scale, np.float32) if scale is not None else None
    zeros = None
    if scales is not None:
        zeros = np.zeros_like(scales) if zero_point is None else np.asarray(zero_point, np.float32)
        if zeros.size != scales.size:
            return None
        zeros = zeros.reshape(scales.shape)  # one of them may be a scalar and the other have one element
        if scales.size == 1 and block is None:
            scales, zeros, axis = scales.reshape(()), zeros.reshape(()), None
    # A dynamic scale is asymmetric by definition (DynamicQuantizeLinear), a float format has no zero point.
    symmetric = isinstance(fmt, FloatFormat) or (known and zeros is not None and not zeros.any())
    coarse = Granularity.PER_TENSOR if axis is None else Granularity.PER_CHANNEL
    spec = QParamsSpec(
        format=fmt,
        symmetric=symmetric,
        granularity=coarse if block is None else Granularity.PER_BLOCK,
        block_size=block,
        scale_kind=ScaleKind.FLOAT8_E4M3 if tensor_scale is not None else _kind(scales, block if symmetric else None),
        dynamic=not known,
    )
    return ImportedQParams(spec=spec, scale=scales, zero_point=zeros, axis=axis, tensor_scale=tensor_scale)


def _kind(scales: Array | None, symmetric_block: int | None) -> ScaleKind:
    """What a file does not say: powers of two for each 32 elements are those of MX, others are somebody's choice."""
    if scales is None or not scales.size or not bool((np.frexp(scales)[0] == 0.5).all()):
        return ScaleKind.FLOAT32
    return ScaleKind.E8M0 if symmetric_block == _MX_BLOCK else ScaleKind.POWER_OF_TWO
