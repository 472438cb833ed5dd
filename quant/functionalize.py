"""An exported program as a functional graph: no operator writes into its operands.

`ExportedProgram.run_decompositions({})` does this for any program by tracing it once more. Most networks only ever
activate in place (`ReLU(inplace=True)`, `x += y`), and for those replacing each such call by its functional form is
the same and takes milliseconds instead of seconds.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch.export import ExportedProgram

from bitwright.quant.disabled_autocast import inline_disabled_autocast
from bitwright.quant.einsum import einsum_by_matmul

aten = torch.ops.aten

# Results may share memory with an operand; all of them have an exact functional meaning in an exported graph.
_VIEWS = frozenset(
    """
    view reshape flatten unflatten squeeze unsqueeze permute transpose t expand expand_as slice select split
    split_with_sizes chunk unbind narrow contiguous detach alias to dropout
    """.split()  # noqa: SIM905 - a list of sixty strings is harder to read
)
_COMPUTE = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear addmm mm bmm matmul batch_norm
    layer_norm group_norm relu relu6 hardtanh hardswish hardsigmoid silu gelu sigmoid tanh leaky_relu elu prelu mish
    softmax log_softmax add sub mul div pow exp sqrt rsqrt clamp clamp_min clamp_max max_pool1d max_pool2d max_pool3d
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum amax amin
    cat stack upsample_nearest2d upsample_bilinear2d pixel_shuffle pad embedding scaled_dot_product_attention clone
    feature_dropout repeat where argmax topk
    """.split()  # noqa: SIM905
)


def functionalize(program: ExportedProgram) -> ExportedProgram:
    """Returns the program without in-place operators, taking the short way where it is surely the same."""
    inline_disabled_autocast(program)
    graph = program.graph
    if all(_is_simple(node) for node in graph.nodes if node.op == "call_function"):
        for node in [node for node in graph.nodes if _is_in_place(node)]:
            _make_functional(graph, node)
        return program
    functional: ExportedProgram = program.run_decompositions({aten.einsum.default: einsum_by_matmul})
    return functional


def _name(node: torch.fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.split("::")[1] if schema is not None else ""


def _is_in_place(node: torch.fx.Node) -> bool:
    return node.op == "call_function" and _name(node).endswith("_")


def _is_simple(node: torch.fx.Node) -> bool:
    name = _name(node)
    if not name:
        return getattr(node.target, "__name__", "") == "getitem"
    return _can_replace(node) if name.endswith("_") else name in _VIEWS | _COMPUTE


def _can_replace(node: torch.fx.Node) -> bool:
    """Whether nobody but later readers of the same value could notice that the operand stays as it was."""
    target: Any = node.target
    if _name(node)[:-1] not in _COMPUTE or not hasattr(getattr(aten, _name(node)[:-1]), target._overloadname):
        return False
    written = node.args[0]
    if not isinstance(written, torch.fx.Node) or written.op != "call_function":
        return False  # a parameter, a buffer or an argument changes
    if _name(written) in _VIEWS or not _name(written):
        return False
    if any(_name(user) in _VIEWS and user < node for user in written.users):
        return False  # an earlier view of it would have changed, too
    result, operand = node.meta["val"], written.meta["val"]
    return bool(
        operand.dtype == result.dtype
        and operand.shape == result.shape
        and all(other.meta["val"].dtype == operand.dtype for other in node.all_input_nodes)
    )


def _make_functional(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    target: Any = node.target
    written: Any = node.args[0]
    node.target = getattr(getattr(aten, _name(node)[:-1]), target._overloadname)
    for user in [user for user in written.users if node < user]:
        user.replace_input_with(written, node)
