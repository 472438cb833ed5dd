"""Pictures as they are stored, 8 bits a pixel, as the argument of an ONNX file.

The network was trained on `(pixel / 255 - mean) / std`. Where the grid of its argument gives every pixel the code that
it is (`mean` 0 and a scale of 1 / (255 std), as with pictures in [0, 1]), the file takes the codes themselves, and what
the first convolution pads with is right by itself. Else the same arithmetic stands in front of the first Q, in float32
and in this order, and gives the codes that a preparation outside gives. It is not folded into the first convolution:
that pads with zeros, which are no black pixels, so that folding would be exact without padding alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper

from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_builder import ELEMENT_TYPES, Array, OnnxBuilder, value_name
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.qparams import QParams

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "input": "uint8: the file takes pictures of 8 bits a pixel; float32 if not given",
        "mean": "what is taken off pixel / 255 then, by channel, such as 0.485,0.456,0.406; 0 if not given",
        "std": "what it is divided by then, likewise; 1 if not given",
    }
)
_LEVELS = np.arange(256, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How a picture becomes the network's argument.

    Attributes:
        mean: float32 `[C]` or `[1]`.
        std: likewise, > 0.
    """

    mean: Array
    std: Array

    def prepared(self, pictures: Array) -> Array:
        """Float32 from uint8 `[…, C, H, W]`, in the order in which the file computes it."""
        shape = (-1, 1, 1)
        scaled = pictures.astype(np.float32) / np.float32(255)
        result: Array = (scaled - self.mean.reshape(shape)) / self.std.reshape(shape)
        return result

    def are_codes_of(self, qparams: QParams | None) -> bool:
        """Whether each pixel's code on a grid is the pixel."""
        if qparams is None or not isinstance(qparams.spec.format, IntFormat) or qparams.spec.format.name != "uint8":
            return False
        levels = self.prepared(_LEVELS.reshape(1, 1, -1).repeat(len(self.mean), 0))
        codes = np.rint(levels / np.float32(qparams.scale)) + np.float32(qparams.zero_point)
        return bool((np.clip(codes, 0, 255) == _LEVELS).all())


def pixels_from(graph: Graph, settings: Mapping[str, str]) -> Pixels | None:
    """What the settings ask for; None without pixels.

    Raises:
        InputError: an unknown type, numbers that do not fit the channels, or an argument that is no picture.
    """
    kind = settings.get("input", "float32")
    if kind not in ("float32", "uint8"):
        raise InputError(f"input = {kind!r}; allowed: float32, uint8")
    if kind == "float32":
        if given := sorted({"mean", "std"} & settings.keys()):
            raise InputError(f"{given[0]} = {settings[given[0]]!r} is of pictures; say input=uint8 as well")
        return None
    shapes = [graph.tensors[ref].shape for ref in graph.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(
            f"input = 'uint8': the network takes {len(shapes)} arguments of shapes {shapes}, not one picture"
        )
    channels = int(shapes[0][1] or 0)
    mean, std = (_numbers(name, settings.get(name), channels, plain) for name, plain in (("mean", 0.0), ("std", 1.0)))
    if (std <= 0).any():
        raise InputError(f"std = {settings['std']!r}; each number is above 0")
    return Pixels(mean=mean, std=std)


def _numbers(name: str, text: str | None, channels: int, plain: float) -> Array:
    try:
        numbers = [plain] if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{name} = {text!r}; it is a list of numbers such as 0.485,0.456,0.406") from None
    if len(numbers) not in (1, channels):
        raise InputError(f"{name} = {text!r} has {len(numbers)} numbers; the picture has {channels} channels")
    return np.asarray(numbers * (channels if len(numbers) == 1 else 1), np.float32)


def take_pixels(b: OnnxBuilder, ref: TensorRef, pixels: Pixels, qparams: QParams | None) -> bool:
    """Writes what stands between the picture and the network's argument.

    Returns:
        Whether the pixels are its codes; else its float values are written, and are still to be quantized.
    """
    name = value_name(ref)
    if qparams is not None and pixels.are_codes_of(qparams):
        b.add_initializer(f"{name}/scale", qparams.scale.numpy().astype(np.float32))
        b.add_initializer(f"{name}/zero_point", qparams.zero_point.numpy().astype(np.uint8))
        b.emit("DequantizeLinear", [f"{name}/pixels", f"{name}/scale", f"{name}/zero_point"], f"{name}/dq")
        return True
    value = b.emit("Cast", [f"{name}/pixels"], b.spare(name), to=ELEMENT_TYPES["float32"])
    value = b.emit("Div", [value, b.constant(name, np.float32(255))], b.spare(name))
    value = b.emit("Sub", [value, b.constant(name, pixels.mean.reshape(-1, 1, 1))], b.spare(name))
    b.emit("Div", [value, b.constant(name, pixels.std.reshape(-1, 1, 1))], name)
    return False


def pixels_of(b: OnnxBuilder, ref: TensorRef) -> onnx.ValueInfoProto:
    """The argument of the file."""
    return helper.make_tensor_value_info(f"{value_name(ref)}/pixels", ELEMENT_TYPES["uint8"], b.shape(ref))
