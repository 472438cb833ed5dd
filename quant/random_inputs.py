"""Inputs made up for a captured network: of the right shapes and types, and inside the ranges that it can take.

Integers that end as an index stay below the size of what they index, and matrices that are inverted can be. What is
recorded decides the rest: floats keep each input's mean and spread, integers its range, and transforms that were rigid
in every record are rigid again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import REF
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.parity import Inputs, Origin

# Operators that hand integers on; (operator, position) of those that take them as places, and what they index.
_PASS_ON = frozenset(
    ["reshape", "flatten", "unsqueeze", "squeeze", "expand", "permute", "transpose", "select", "slice", "to", "repeat"]
)
_SCALES = (1.0, 4.0)  # standard normal, and wide enough to reach the flat ends of activations
RIGID_TOLERANCE = 1e-4  # of R R^T against the identity; what float32 leaves of a product of a few rotations


def random_inputs(
    captured: CapturedModel, count: int, *, seed: int = 0, recorded: Sequence[Inputs] = ()
) -> list[Inputs]:
    """Makes up arguments for a captured network; the same ones for the same seed.

    Args:
        captured: the network.
        count: how many calls.
        seed: of the generator.
        recorded: real arguments to follow.
    """
    generator = torch.Generator().manual_seed(seed)
    specs = captured.input_nodes
    records = [list(captured.flatten(each.args, dict(each.kwargs))) for each in recorded]
    made = []
    for number in range(count):
        leaves = []
        for position, node in enumerate(specs):
            seen = [record[position] for record in records]
            leaves.append(_leaf(captured.graph, node, seen, generator, _SCALES[number % len(_SCALES)]))
        args, kwargs = pytree.tree_unflatten(leaves, captured.in_spec)
        made.append(Inputs(args=args, kwargs=kwargs, origin=Origin.RANDOM))
    return made


def _leaf(graph: Graph, node: torch.fx.Node, seen: Sequence[Any], generator: torch.Generator, scale: float) -> Any:
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):
        return value  # a Python number is a part of the captured program
    shape, dtype = tuple(int(size) for size in value.shape), value.dtype
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if not dtype.is_floating_point and not dtype.is_complex:
        return torch.randint(*_integer_range(graph, node.meta[REF][0], seen), shape, generator=generator).to(dtype)
    if seen and all(map(is_rigid, seen)):
        return _rigid(shape, seen, generator).to(dtype)
    if _is_inverted(graph, node.meta[REF][0]):
        return _invertible(shape, generator).to(dtype)
    if dtype.is_complex:
        return torch.complex(*(torch.randn(shape, generator=generator) for _ in range(2))).to(dtype)
    drawn = torch.randn(shape, generator=generator) * scale
    if seen:
        everything = torch.stack([each.double() for each in seen])
        drawn = drawn * float(everything.std(correction=0)) + float(everything.mean())
    return drawn.to(dtype)


def _integer_range(graph: Graph, ref: TensorRef, seen: Sequence[torch.Tensor]) -> tuple[int, int]:
    """From which integer to below which one."""
    if seen:
        return min(int(each.min()) for each in seen), max(int(each.max()) for each in seen) + 1
    return 0, max(1, min(_indexed_sizes(graph, ref), default=2))


def _indexed_sizes(graph: Graph, ref: TensorRef) -> list[int]:
    """The sizes of the axes into which a tensor of integers points."""
    sizes: list[int] = []
    for node in graph.consumers[ref]:
        if node.op in _PASS_ON:
            sizes += _indexed_sizes(graph, node.outputs[0])
            continue
        source = graph.tensors[node.tensors[0]].shape
        axis: Any = node.attributes.get("dim", 0)
        if node.op == "embedding" and node.inputs[1] == ref:
            axis = 0
        elif node.op in ("gather", "index_select", "scatter", "scatter_add", "index_add") and node.inputs[1] == ref:
            pass
        elif node.op in ("index", "index_put") and ref in node.inputs[1:]:
            axis = node.inputs.index(ref) - 1
        else:
            continue
        size = source[axis]
        sizes += [size] if size is not None else []
    return sizes


def _is_inverted(graph: Graph, ref: TensorRef) -> bool:
    """Whether a tensor holds matrices whose inverse is taken."""
    readers = graph.consumers[ref]
    return any(
        node.op in ("inverse", "linalg_inv", "linalg_inv_ex")
        or (node.op in _PASS_ON and _is_inverted(graph, node.outputs[0]))
        for node in readers
    )


def _invertible(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Matrices with singular values between 1/2 and 2: of others, an inverse in float32 has few digits by any means."""
    left, right = (torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64)).Q for _ in range(2))
    values = 4.0 ** (torch.rand(shape[:-1], generator=generator, dtype=torch.float64) - 0.5)
    made: torch.Tensor = left * values.unsqueeze(-2) @ right
    return made


def is_rigid(matrices: torch.Tensor) -> bool:
    """Whether all of `[..., 4, 4]` are rotations and translations: `[R t; 0 0 0 1]` with `R R^T = I`, `det R > 0`."""
    if matrices.shape[-2:] != (4, 4) or not matrices.is_floating_point():
        return False
    wide = matrices.double()
    rotation = wide[..., :3, :3]
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    square = rotation @ rotation.transpose(-2, -1) - torch.eye(3, dtype=torch.float64)
    orthonormal = bool(square.abs().max() <= RIGID_TOLERANCE) and bool((torch.linalg.det(rotation) > 0).all())
    return orthonormal and bool(torch.equal(wide[..., 3, :], last.expand_as(wide[..., 3, :])))


def _rigid(shape: tuple[int, ...], seen: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """Random rotations, and translations as large as the recorded ones."""
    q, r = torch.linalg.qr(torch.randn(*shape[:-2], 3, 3, generator=generator, dtype=torch.float64))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    q = q * torch.linalg.det(q).sign()[..., None, None]
    spread = max(float(each[..., :3, 3].abs().max()) for each in seen)
    matrices = torch.eye(4, dtype=torch.float64).expand(shape).clone()
    matrices[..., :3, :3] = q
    matrices[..., :3, 3] = torch.randn(*shape[:-2], 3, generator=generator, dtype=torch.float64) * spread
    return matrices
