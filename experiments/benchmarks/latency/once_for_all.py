"""Other people's table: inverted residual blocks on a phone, as once-for-all published them (Cai et al. 2020).

Each line is a whole block (1 x 1 up, depthwise, squeeze and excitation or none, 1 x 1 down, the addition of what skips
it), measured by itself in TensorFlow Lite on a Samsung Note10. `published/once_for_all_note10.csv` names its source.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

from bitwright.hw_constraints.kernels import Split, split
from bitwright.hw_constraints.predict.calibration import MeasuredNetwork
from bitwright.hw_constraints.predict.planned_model import float_model
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.graph import Graph, TensorRef

FILE = Path(__file__).parent / "published" / "once_for_all_note10.csv"
RESOLUTIONS = (160, 192, 224)
_DIVISOR = 8  # widths of squeezed channels are multiples of it, as in MobileNetV3
_SQUEEZE = 4


@dataclass(frozen=True, kw_only=True)
class Block:
    """One line of the table.

    Attributes:
        resolution: of the network that it stands in.
        side: height and width of its input.
        channels_in: of its input.
        channels_out: of its result.
        expanded: channels in between.
        kernel: height and width of the depthwise kernel.
        stride: of the depthwise convolution.
        skip: 1 where the input is added to the result.
        squeeze_excite: 1 where channels are gated.
        hard_swish: 1 for hard swish, 0 for ReLU.
        ms: its mean latency.
    """

    resolution: int
    side: int
    channels_in: int
    channels_out: int
    expanded: int
    kernel: int
    stride: int
    skip: int
    squeeze_excite: int
    hard_swish: int
    ms: float

    @property
    def name(self) -> str:
        """Unique in the table."""
        return "-".join(str(getattr(self, each.name)) for each in fields(self) if each.name != "ms")

    def graph(self) -> Graph:
        """The block as a network."""
        b = GraphBuilder()
        x = y = b.input(1, self.channels_in, self.side, self.side)
        if self.expanded != self.channels_in:
            y = self._act(b, b.conv2d(y, self.expanded, 1))
        y = self._act(b, b.conv2d(y, self.expanded, self.kernel, stride=self.stride, groups=self.expanded))
        y = _gated(b, y) if self.squeeze_excite else y
        y = b.conv2d(y, self.channels_out, 1)
        return b.graph(b.call("add", x, y, shape=b.tensors[y].shape) if self.skip else y)

    def _act(self, b: GraphBuilder, x: TensorRef) -> TensorRef:
        return b.call("hardswish" if self.hard_swish else "relu", x, shape=b.tensors[x].shape)

    def split(self, runtime: str) -> Split:
        """The block as kernels of a runtime."""
        return split(float_model(self.graph()), runtime)

    def measured(self, runtime: str) -> MeasuredNetwork:
        """The block as a network that was measured whole."""
        parts = self.split(runtime)
        kernels = tuple(placed.kernel for placed in parts.kernels)
        us = 1e3 * self.ms
        return MeasuredNetwork(name=self.name, kernels=kernels, inputs=parts.inputs, outputs=parts.outputs, us=us)


def _gated(b: GraphBuilder, x: TensorRef) -> TensorRef:
    n, channels, *_ = b.tensors[x].shape
    assert n and channels
    squeezed = max(_DIVISOR, round(channels / _SQUEEZE / _DIVISOR) * _DIVISOR)
    pooled = b.call("adaptive_avg_pool2d", x, shape=(n, channels, 1, 1), output_size=(1, 1))
    inner = b.conv2d(pooled, squeezed, 1)
    gate = b.conv2d(b.call("relu", inner, shape=(n, squeezed, 1, 1)), channels, 1)
    return b.call("mul", x, b.call("hardsigmoid", gate, shape=(n, channels, 1, 1)), shape=b.tensors[x].shape)


def published() -> tuple[Block, ...]:
    """All blocks, in the file's order."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return tuple(_block(row) for row in csv.DictReader(lines))


def _block(row: dict[str, str]) -> Block:
    sizes = {name: int(value) for name, value in row.items() if name != "ms"}
    return Block(**sizes, ms=float(row["ms"]))
