"""A captured network made ready to run on many samples on a CPU: the same network in less time.

Its 2-d convolutions become oneDNN's own calls, as TorchInductor writes them: weights are put into the kernels' layout
once instead of at every call, and a ReLU or clamp behind a convolution is applied as its results are stored. Sums are
taken in another order, so results differ in their last bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import REF, copy_graph, operator_type
from bitwright.quant.graph import TensorRef

# The largest block that glibc's malloc still learns from (mallopt(3): M_MMAP_THRESHOLD is at most 32 MiB).
_LEARNT_BYTES = 31 << 20
# What aten.conv2d and aten.hardtanh take where an argument is left out.
_CONVOLUTION: tuple[Any, ...] = (None, (1, 1), (0, 0), (1, 1), 1)  # bias, stride, padding, dilation, groups
_HARDTANH = (-1.0, 1.0)


def ready_to_run(captured: CapturedModel, watched: Collection[TensorRef]) -> CapturedModel:
    """The network for `run` alone: its convolutions have kernels' weights and may have taken in what follows them.

    Args:
        captured: the network in float; stays as it is.
        watched: tensors that must pass through the transform of `run`; others may no longer exist.
    """
    _keep_freed_memory()
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return captured
    graph, _ = copy_graph(captured.fx_graph)
    values = dict(captured.values)
    for node in list(graph.nodes):
        if _is_plain_convolution(node, values):
            _call_kernel(graph, node, values, watched)
    return replace(captured, fx_graph=graph, values=values)


def _keep_freed_memory() -> None:
    """Lets malloc reuse the memory of activations instead of giving it back to the system layer by layer.

    glibc raises its threshold for memory of its own, and with it the one for giving memory back, to the largest block
    that was freed; without that, page faults take a third of MobileNetV2's time. The block itself is never touched.
    """
    torch.empty(_LEARNT_BYTES, dtype=torch.uint8)


def give_back_memory() -> None:
    """Returns to the system what `_keep_freed_memory` has kept, before something that needs another lot of it.

    Backward passes through a ResNet-50 leave 300 MB behind. Where the C library has no such call nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; see malloc_trim(3)
    if trim is not None:
        trim(0)


def _is_plain_convolution(node: torch.fx.Node, values: dict[str, torch.Tensor]) -> bool:
    if node.target is not torch.ops.aten.conv2d.default:
        return False
    data, weight, *rest = node.args
    constants = [weight, *rest[:1]]
    return (
        isinstance(data, torch.fx.Node)
        and data.meta["val"].dim() == 4
        and data.meta["val"].dtype is torch.float32
        and all(part is None or (isinstance(part, torch.fx.Node) and part.name in values) for part in constants)
        and isinstance(weight, torch.fx.Node)
        and len(weight.users) == 1
    )


def _call_kernel(
    graph: torch.fx.Graph, node: torch.fx.Node, values: dict[str, torch.Tensor], watched: Collection[TensorRef]
) -> None:
    arguments: Any = node.args
    data, weight, *given = arguments
    bias, stride, padding, dilation, groups = tuple(given) + _CONVOLUTION[len(given) :]
    window = (padding, stride, dilation, groups)
    values[weight.name] = _in_kernel_order(values[weight.name], data, window)
    follower = next(iter(node.users)) if len(node.users) == 1 and node.meta[REF][0] not in watched else None
    name, bounds = _epilogue(follower)
    last = follower if follower is not None and name != "none" else node
    with graph.inserting_before(node):
        fused = graph.call_function(
            torch.ops.mkldnn._convolution_pointwise.default, (data, weight, bias, *window, name, list(bounds), "")
        )
    fused.meta = dict(last.meta)
    last.replace_all_uses_with(fused)
    for old in dict.fromkeys((last, node)):
        graph.erase_node(old)


def _in_kernel_order(weight: torch.Tensor, data: torch.fx.Node, window: Sequence[Any]) -> torch.Tensor:
    shape = list(data.meta["val"].shape)
    reordered: torch.Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *window, shape)
    return reordered


def kernel_weight(node: torch.fx.Node, weight: torch.Tensor) -> torch.Tensor:
    """A weight as a node of a network that is ready to run reads it."""
    if operator_type(node) != "_convolution_pointwise":
        return weight
    arguments: Any = node.args
    return _in_kernel_order(weight, arguments[0], arguments[3:7])


def _epilogue(follower: torch.fx.Node | None) -> tuple[str, tuple[float, ...]]:
    """What the kernel applies to its results before it stores them."""
    kind = operator_type(follower) if follower is not None and follower.op == "call_function" else ""
    if kind == "relu":
        return "relu", ()
    if kind == "hardtanh" and follower is not None:
        given: Any = follower.args[1:]
        return "hardtanh", tuple(float(bound) for bound in (*given, *_HARDTANH[len(given) :]))
    return "none", ()
