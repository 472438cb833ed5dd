"""What layers give in float at the positions that are looked at, found in one forward of each sample and kept on disk.

The float network needs no walk (`walk`): nothing that is chosen changes it. Calibration runs it on the same samples
anyway. A few positions of every layer are a hundredth of what lives between its layers, and the file is read once,
layer by layer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel, Transform
from bitwright.quant.graph import TensorRef
from bitwright.quant.inference import ready_to_run
from bitwright.quant.plan import QuantPlan
from bitwright.quant.reconstruct.layers import Layer, find_layers


class FloatResults:
    """Results by layer and sample; float32, in a file without a name that goes with this object.

    Args:
        captured: the network in float.
        decided: says which layers are rounded.
        samples: how many there are; others that come behind them are passed over.

    Attributes:
        refs: the results themselves, or those of the activations behind them.
    """

    refs: Collection[TensorRef]

    def __init__(self, captured: CapturedModel, decided: QuantPlan, samples: int) -> None:
        layers, _ = find_layers(captured, decided, samples)
        self._layers = {_shown(captured, decided, layer): layer for layer in layers}
        self.refs, self._samples = self._layers.keys(), samples
        self._file = tempfile.TemporaryFile(prefix="bitwright-results-")  # noqa: SIM115 - closed with this object
        self._places: dict[tuple[str, int], tuple[int, tuple[int, ...]]] = {}

    @classmethod
    def of_samples(
        cls,
        captured: CapturedModel,
        decided: QuantPlan,
        samples: Sequence[Arguments],
        states: Sequence[Mapping[str, torch.Tensor]],
    ) -> FloatResults:
        """Of arguments of `forward` at the captured batch size, each with its incoming state where there is one."""
        found = cls(captured, decided, len(samples))
        running = ready_to_run(captured, found.refs)
        for sample in range(len(samples)):
            note = found.beside(sample, lambda ref, tensor: tensor)
            running.run(*samples[sample], state=dict(states[sample]) if states else None, transform=note)
        return found

    def beside(self, piece: int, observe: Transform) -> Transform:
        """As `Onlooker.beside`."""
        if piece >= self._samples:
            return observe

        def note(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
            if ref in self._layers:
                self._keep(self._layers[ref], piece, tensor)
            return observe(ref, tensor)

        return note

    def of(self, layer: Layer, sample: int) -> torch.Tensor:
        """`[G, R, n]`, at the positions of `Layer.results`."""
        place, shape = self._places[layer.node.name, sample]
        values = np.empty(shape, np.float32)
        self._file.flush()
        os.preadv(self._file.fileno(), [values.data.cast("B")], place)
        return torch.from_numpy(values)

    def _keep(self, layer: Layer, sample: int, tensor: torch.Tensor) -> None:
        results = layer.results(tensor, sample).contiguous()
        self._places[layer.node.name, sample] = self._file.tell(), tuple(results.shape)
        self._file.write(results.numpy().data)


def _shown(captured: CapturedModel, decided: QuantPlan, layer: Layer) -> TensorRef:
    """Where a layer's result is seen: behind the activation that its bounds speak of, which kernels may take in."""
    if layer.unbounded:
        return layer.node.outputs[0]
    follower = next(chain[1] for chain in decided.fused if chain[0] == layer.node.name)
    return captured.graph.by_name[follower].outputs[0]
