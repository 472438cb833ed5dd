"""A captured network made ready to run on many samples on a CPU: the same network in less time."""

from __future__ import annotations

from dataclasses import replace

import torch

from bitwright.quant.captured_model import CapturedModel

# The largest block that glibc's malloc still learns from (mallopt(3): M_MMAP_THRESHOLD is at most 32 MiB).
_LEARNT_BYTES = 31 << 20


def ready_to_run(captured: CapturedModel) -> CapturedModel:
    """The network with the weights of its 2-d convolutions channels last, where oneDNN's kernels want them.

    Every activation behind them then lies channels last, too, and no layer reorders its input and result. Sums are
    taken in another order, so results differ in their last bits.
    """
    _keep_freed_memory()
    graph, names = captured.graph, captured.value_refs
    weights = {names[node.tensors[1]] for node in graph.nodes if node.op == "conv2d" and node.tensors[1] in names}
    values = {
        name: value.contiguous(memory_format=torch.channels_last) if name in weights else value
        for name, value in captured.values.items()
    }
    return replace(captured, values=values)


def _keep_freed_memory() -> None:
    """Lets malloc reuse the memory of activations instead of giving it back to the system layer by layer.

    glibc raises its threshold for memory of its own, and with it the one for giving memory back, to the largest block
    that was freed; without that, page faults take a third of MobileNetV2's time. The block itself is never touched.
    """
    torch.empty(_LEARNT_BYTES, dtype=torch.uint8)
