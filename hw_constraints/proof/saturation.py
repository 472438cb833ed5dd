"""Where unsigned x signed products can saturate on processors without an 8-bit dot product instruction.

Without VNNI, x86 kernels multiply u8 activations with s8 weights by `vpmaddubsw`, which adds two neighbouring
products in 16 bits with saturation: a0 * w0 + a1 * w1 with a in [0, 255] leaves [-32768, 32767] when
255 * (w0 + w1) > 32767 or < -32768 for weights of equal sign. Nothing is raised; the result is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from bitwright.hw_constraints.proof.macs import weight_position
from bitwright.hw_constraints.proof.onnx_graph import DEQUANTIZE, OnnxGraph, read_onnx

_LARGEST_CODE = 255
_INT16_MAX = 32767


@dataclass(frozen=True, kw_only=True)
class SaturationRisk:
    """A layer whose products may saturate.

    Which weights are neighbours is the kernel's choice, so the bound takes the two largest of equal sign of an output
    channel: a layer that is not listed cannot saturate; one that is may.

    Attributes:
        layer: its name in the file.
        channels: output channels at risk.
        of_channels: all its output channels.
        worst_sum: the largest magnitude of a0 * w0 + a1 * w1 that can arise.
    """

    layer: str
    channels: int
    of_channels: int
    worst_sum: int


def describe_risks(risks: tuple[SaturationRisk, ...]) -> str:
    """All of them in one line, the worst by name; there has to be one."""
    worst = risks[0]
    return (
        f"u8 x s8 products can saturate at 16 bits on this processor in {len(risks)} layers, worst in "
        f"{worst.layer} ({worst.channels} of {worst.of_channels} output channels; two products reach "
        f"{worst.worst_sum}, the limit is {_INT16_MAX}): results may be wrong without an error. "
        "Keep weight codes within [-64, 63], or run where the processor has VNNI"
    )


def saturation_risk(path: Path) -> tuple[SaturationRisk, ...]:
    """The layers of a file with u8 activations and s8 weights that may saturate, worst first.

    Raises:
        InputError: the file is not readable.
    """
    return saturation_risks(read_onnx(path))


def saturation_risks(graph: OnnxGraph) -> tuple[SaturationRisk, ...]:
    """As `saturation_risk`, for a graph that was read already."""
    found = (_risk(graph, node) for node in graph.nodes if weight_position(node.op_type) is not None)
    return tuple(sorted((risk for risk in found if risk), key=lambda risk: -risk.worst_sum))


def worst_pair_sums(channels: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """How far a0 * w0 + a1 * w1 can go in each row with a in [0, 255], as a magnitude to compare with 32767.

    Args:
        channels: weight codes [C_out, products].
    """
    if channels.shape[1] < 2:
        channels = np.pad(channels, ((0, 0), (0, 1)))
    ordered = np.sort(channels.astype(np.int64), axis=1)
    highest = _LARGEST_CODE * np.clip(ordered[:, -2:], 0, None).sum(axis=1)
    lowest = _LARGEST_CODE * np.clip(ordered[:, :2], None, 0).sum(axis=1)
    # -32768 still fits: as a magnitude it stands for 32767.
    return np.asarray(np.maximum(highest, -lowest - 1), np.int64)


def _risk(graph: OnnxGraph, node: NodeProto) -> SaturationRisk | None:
    codes = _weight_codes(graph, node)
    if codes is None or codes.dtype != np.int8 or _data_dtype(graph, node) not in ("uint8", "int8"):
        return None
    sums = worst_pair_sums(_by_output_channel(node, codes).astype(np.int32))
    risky = int(np.count_nonzero(sums > _INT16_MAX))
    if not risky:
        return None
    name = node.name or node.output[0]
    return SaturationRisk(layer=name, channels=risky, of_channels=len(sums), worst_sum=int(sums.max()))


def _weight_codes(graph: OnnxGraph, node: NodeProto) -> npt.NDArray[np.int8] | None:
    """The weight's codes as they stand in the file, before a DequantizeLinear or in an integer operator."""
    value = node.input[weight_position(node.op_type) or 0]
    maker = graph.maker(value)
    return graph.constant(maker.input[0] if maker is not None and maker.op_type == DEQUANTIZE else value)


def _data_dtype(graph: OnnxGraph, node: NodeProto) -> str:
    # Runtimes turn signed activation codes into unsigned ones for these kernels: they saturate likewise.
    codes = graph.codes_before(node.input[0])
    return codes.dtype if codes is not None else graph.dtype(node.input[0])


def _by_output_channel(node: NodeProto, codes: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    if node.op_type in ("ConvTranspose", "MatMul", "MatMulInteger", "QLinearMatMul"):
        axis = 1 if node.op_type == "ConvTranspose" else -1
    else:
        axis = -1 if node.op_type in ("Gemm", "QGemm") and not transposed else 0
    return np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1)
