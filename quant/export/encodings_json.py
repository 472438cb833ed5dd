"""A float ONNX file and its encodings, for AIMET and Qualcomm AI Engine Direct.

The layouts stand in `onnx_import.encodings`. Runtimes derive biases themselves: int32 with scale(input) *
scale(weight), as the plan has them.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import Exporter, described
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.export.onnx_qdq import DEFAULT_OPSET, export_float
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import TensorRef
from bitwright.quant.onnx_import.encodings import SUFFIX, VERSIONS
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity, ScaleKind

DEFAULT_VERSION = "1.0.0"  # AIMET's own; 2.0.0 is what its documentation calls the latest
_FIRST_BITS = {"0.6.1": 4, "1.0.0": 4, "2.0.0": 2}  # "bitwidth: constraints >= 4 and <= 32"; 2.0.0 lists its types
_POWERS = (2, 4, 8, 16, 32)  # widths of 2.0.0's types
_LEFT = ("matmul", "mm", "bmm")


def write_encodings(quantized: QuantizedModel, path: Path, *, version: str = DEFAULT_VERSION) -> tuple[Path, ...]:
    """Writes `NAME.onnx` in float and `NAME.encodings`.

    Raises:
        InputError: an unknown version, or a tensor whose format, scales or blocks it has no words for.
    """
    if version not in VERSIONS:
        raise InputError(f"version = {version!r}; encodings have: {', '.join(VERSIONS)}")
    captured = quantized.captured
    writer = _Writer(quantized, version)
    entries = {ref: writer.entry(ref) for ref in (*quantized.plan.activations, *quantized.plan.weights)}
    file = export_float(captured.graph, path, opset=DEFAULT_OPSET)
    beside = path.with_suffix(SUFFIX)
    beside.write_text(json.dumps(writer.content(entries), indent=1), encoding="utf-8")
    return file, beside


class _Writer:
    def __init__(self, quantized: QuantizedModel, version: str) -> None:
        self.quantized, self.graph, self.version = quantized, quantized.captured.graph, version

    def content(self, entries: dict[TensorRef, Any]) -> dict[str, Any]:
        """The whole file."""
        head = {"version": self.version, "producer": {"package": "bitwright"}}
        plan = self.quantized.plan
        parts = {
            "activation_encodings": {value_name(ref): entries[ref] for ref in plan.activations},
            "param_encodings": {value_name(ref): entries[ref] for ref in plan.weights},
        }
        if self.version == "0.6.1":
            return {**head, **parts}
        named = {key: [{"name": name, **each} for name, each in part.items()] for key, part in parts.items()}
        if self.version == "1.0.0":
            return {**head, **named}
        return {**head, "encodings": [*named["activation_encodings"], *named["param_encodings"]]}

    def entry(self, ref: TensorRef) -> Any:
        """How one tensor is coded, in the words of the version."""
        if ref in self.quantized.dynamic:
            raise self._refusal(ref, "its scale follows the data; encodings hold fixed scales")
        qparams = self.quantized.qparams[ref]
        fmt = qparams.spec.format
        if fmt.name == "float16" and self.version != "2.0.0":
            legacy = {"bitwidth": 16, "dtype": "float"}
            return [legacy] if self.version == "0.6.1" else {"dtype": "FLOAT", "bw": 16, "enc_type": "PER_TENSOR"}
        if not isinstance(fmt, IntFormat) or fmt.bits < _FIRST_BITS[self.version] or not self._has_width(fmt.bits):
            raise self._refusal(ref, f"format {fmt.name}; encodings {self.version} hold {self._formats()}")
        self._check_codes(ref, qparams)
        self._check_scales(ref, qparams)
        if self.version == "2.0.0":
            return _as_quantize_linear(qparams)
        offset = fmt.code_min - qparams.zero_point.double()
        # Codes that are signed and have a zero point are the same numbers as unsigned ones.
        signed = fmt.signed and qparams.spec.symmetric
        if self.version == "1.0.0":
            return self._flat(ref, qparams, offset, signed)
        scale, top = qparams.scale.double(), 2**fmt.bits - 1
        channels = zip(scale.reshape(-1).tolist(), offset.reshape(-1).tolist(), strict=True)
        return [
            {
                "bitwidth": fmt.bits,
                "dtype": "int",
                "is_symmetric": str(signed),
                "scale": each,
                "offset": int(start),
                "min": start * each,
                "max": (start + top) * each,
            }
            for each, start in channels
        ]

    def _flat(self, ref: TensorRef, qparams: QParams, offset: torch.Tensor, signed: bool) -> dict[str, Any]:
        spec, scale = qparams.spec, qparams.scale.double()
        kinds = {Granularity.PER_TENSOR: "PER_TENSOR", Granularity.PER_CHANNEL: "PER_CHANNEL"}
        kind = kinds.get(spec.granularity, "PER_BLOCK") if scale.dim() else "PER_TENSOR"
        entry = {"dtype": "INT", "bw": spec.format.bits, "enc_type": kind, "is_sym": signed}
        if kind == "PER_BLOCK":
            entry["block_size"] = spec.block_size
            if qparams.axis == 0:  # ordered by output channel, then by block
                scale, offset = scale.T, offset.T
        return {**entry, "scale": scale.reshape(-1).tolist(), "offset": offset.reshape(-1).int().tolist()}

    # --- what cannot be said ---

    def _check_codes(self, ref: TensorRef, qparams: QParams) -> None:
        """A narrow range has no word; it needs none where no value rounds to the code that it leaves out."""
        spec = qparams.spec
        if not spec.narrow_range or not spec.format.signed:
            return
        from bitwright.quant.fake_quantize import aligned

        name = self.quantized.captured.value_refs.get(ref)
        if name is not None:
            values = self.quantized.captured.values[name]
            if bool((values / aligned(qparams.scale, qparams, values) >= spec.code_range[0] - 0.5).all()):
                return
        raise self._refusal(ref, "narrow_range, which encodings cannot say; quantize it with the whole range")

    def _check_scales(self, ref: TensorRef, qparams: QParams) -> None:
        spec = qparams.spec
        if spec.scale_kind is ScaleKind.FLOAT8_E4M3:
            raise self._refusal(ref, "scales of two levels, which encodings cannot say")
        if self.version == "2.0.0":
            return
        if spec.granularity is Granularity.PER_CHANNEL and self._is_left(ref):
            raise self._refusal(ref, f"channels of a left factor, whose axis encodings {self.version} cannot say")
        if spec.block_size is None or not qparams.scale.dim():
            return
        shape = self.graph.tensors[ref].shape
        if self.version == "0.6.1":
            raise self._refusal(ref, "a scale for each block; encodings 0.6.1 have none: write version 1.0.0 or 2.0.0")
        if len(shape) != 2 or (shape[qparams.axis or 0] or 0) % spec.block_size:
            blocks = f"blocks of {spec.block_size} in shape {list(shape)}"
            raise self._refusal(ref, f"{blocks}; encodings 1.0.0 have whole ones of matrices: write version 2.0.0")

    def _is_left(self, ref: TensorRef) -> bool:
        reader = next(iter(self.graph.consumers[ref]), None)
        return reader is not None and reader.op in _LEFT and reader.inputs[0] == ref

    def _has_width(self, bits: int) -> bool:
        return bits in _POWERS or self.version != "2.0.0"

    def _formats(self) -> str:
        if self.version == "2.0.0":
            return f"integers of {', '.join(map(str, _POWERS))} bits"
        return f"integers of {_FIRST_BITS[self.version]} to 32 bits and float16"

    def _refusal(self, ref: TensorRef, why: str) -> InputError:
        return InputError(f"{described(self.graph, ref)}: {why}")


def _as_quantize_linear(qparams: QParams) -> dict[str, Any]:
    entry: dict[str, Any] = {"output_dtype": qparams.spec.format.name, "y_scale": qparams.scale.double().tolist()}
    if bool(qparams.zero_point.any()):
        entry["y_zero_point"] = qparams.zero_point.int().tolist()
    if qparams.scale.dim():
        entry["axis"] = qparams.axis
    if qparams.spec.block_size is not None and qparams.scale.dim():
        entry["block_size"] = qparams.spec.block_size
    return entry


EXPORTER = Exporter(
    title="float ONNX and AIMET encodings",
    write=write_encodings,
    settings=MappingProxyType({"version": f"of the encodings: {', '.join(VERSIONS)}; {DEFAULT_VERSION} if not given"}),
)
