"""Twins: operators that ONNX writes alike and ATen has several names for, spelled as the network had them.

Where nothing is known about the network, each keeps the name that says what the ONNX operator does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bitwright.quant.onnx_import.calls import Call
from bitwright.quant.onnx_import.network import Network
from bitwright.quant.onnx_import.values import Shape

RESHAPES = frozenset({"reshape", "view", "_unsafe_view", "view_as", "flatten", "unflatten", "squeeze", "unsqueeze"})
PERMUTATIONS = frozenset({"permute", "transpose", "t", "numpy_T", "movedim", "swapaxes"})
SPLITS = frozenset({"split_with_sizes", "split", "chunk"})

Spell = Callable[[Network, Call, str], None]


def spell(network: Network) -> None:
    """Gives each call the name that the network had for it."""
    for call in network.calls:
        wanted = network.origin(call).op
        if wanted and wanted != call.op and len(network.group(call)) == 1:
            for family, names, function in _FAMILIES:
                if call.op in family and wanted in names:
                    function(network, call, wanted)
                    break


def _reshape(network: Network, call: Call, wanted: str) -> None:
    before, after = network.shape(call.operands[0]), network.shape(call.outputs[0])
    attributes = _reshape_attributes(before, after, wanted)
    if attributes is not None:
        call.op = "reshape" if wanted in ("view", "_unsafe_view") else wanted
        call.attributes = attributes
    elif call.op != "reshape":
        call.op, call.attributes = "reshape", {"shape": tuple(-1 if size is None else size for size in after)}


def _reshape_attributes(before: Shape, after: Shape, wanted: str) -> dict[str, Any] | None:
    """The arguments with which `wanted` makes one shape of the other; None when it does not."""
    if wanted in ("reshape", "view", "_unsafe_view", "view_as"):
        return {"shape": tuple(-1 if size is None else size for size in after)}
    more = len(after) - len(before)
    if wanted == "unsqueeze":
        return next(({"dim": d} for d in range(len(after)) if (*before[:d], 1, *before[d:]) == after), None)
    if wanted == "squeeze":
        places = [d for d, size in enumerate(before) if size == 1 and (*before[:d], *before[d + 1 :]) == after]
        gone = tuple(d for d, size in enumerate(before) if size == 1)
        return {"dim": places[0]} if places else {"dim": gone} if len(gone) == -more else None
    if wanted == "flatten":
        # Several first dimensions may do where some have size 1; behind the batch is what people write.
        starts = [d for d in range(len(after)) if _merged(before, d, d - more) == after]
        start = 1 if 1 in starts else next(iter(starts), None)
        return None if start is None else {"start_dim": start, "end_dim": start - more}
    starts = [d for d in range(len(before)) if _merged(after, d, d + more) == before]
    return {"dim": starts[0], "sizes": after[starts[0] : starts[0] + more + 1]} if starts else None


def _merged(shape: Shape, start: int, end: int) -> Shape | None:
    """A shape with the dimensions from `start` to `end` as one; None when they are open or not there."""
    sizes = shape[start : end + 1]
    if None in sizes or not start <= end < len(shape):
        return None
    return (*shape[:start], math.prod(size for size in sizes if size is not None), *shape[end + 1 :])


def _permutation(network: Network, call: Call, wanted: str) -> None:
    dims = call.attributes["dims"]
    moved = [axis for axis, source in enumerate(dims) if axis != source]
    if wanted == "transpose" and len(moved) == 2:
        call.op, call.attributes = wanted, {"dim0": moved[0], "dim1": moved[1]}
    elif wanted in ("t", "numpy_T"):
        call.op, call.attributes = wanted, {}


def _pool(network: Network, call: Call, wanted: str) -> None:
    """In our own files only: torch.onnx calls each pool over everything a mean."""
    if network.draft.is_own:
        rank = len(network.shape(call.operands[0]))
        call.op, call.attributes = "mean", {"dim": tuple(range(2, rank)), "keepdim": True, "dtype": None}


def _split(network: Network, call: Call, wanted: str) -> None:
    sizes, dim = call.attributes["split_sizes"], call.attributes["dim"]
    call.op = wanted
    call.attributes = {"split_size": sizes[0], "dim": dim} if wanted == "split" else {"chunks": len(sizes), "dim": dim}


def _masked_fill(network: Network, call: Call, wanted: str) -> None:
    """`where(mask, value, x)` is `masked_fill(x, mask, value)`."""
    if len(call.inputs) == 3:
        number = call.attributes.get("self")
        call.op, call.inputs = wanted, [call.inputs[2], call.inputs[0], call.inputs[1]]
        call.attributes = {"value": number} if number is not None else {}
        if number is not None:
            call.inputs = call.inputs[:2]


def _pad(network: Network, call: Call, wanted: str) -> None:
    attributes = call.attributes
    if wanted == "pad":
        call.attributes = {"pad": attributes["pad"], "mode": "constant", "value": attributes["value"]}
    call.op = wanted


def _renamed(network: Network, call: Call, wanted: str) -> None:
    """Twins with the same arguments."""
    call.op = wanted


def _clamped(network: Network, call: Call, wanted: str) -> None:
    if wanted in ("maximum", "max", "minimum", "min") or call.op not in ("clamp", "hardtanh"):
        return
    low, high = (call.attributes.get(a, call.attributes.get(b)) for a, b in (("min", "min_val"), ("max", "max_val")))
    if wanted == "clamp" and call.op == "clamp":
        call.attributes = {"min": low, "max": high}
    elif wanted in ("clamp_min", "clamp_max"):
        call.op = wanted
        call.attributes = {"min": low} if wanted == "clamp_min" else {"max": high}


def _reduced(network: Network, call: Call, wanted: str) -> None:
    """`max` over everything has no arguments."""
    if not call.attributes["keepdim"] and len(call.attributes["dim"]) == len(network.shape(call.operands[0])):
        call.op, call.attributes = wanted, {}


def _selected(network: Network, call: Call, wanted: str) -> None:
    if wanted == "index" and call.op in ("index_select", "embedding"):
        dim = call.attributes.get("dim", 0)
        call.op, call.inputs, call.attributes = "index", [call.inputs[0], *[None] * dim, call.inputs[1]], {}
    elif wanted == "index_select" and call.op == "embedding":
        call.op, call.attributes = wanted, {"dim": 0}
    elif wanted == "embedding" and call.op == "index_select" and call.attributes["dim"] == 0:
        call.op, call.attributes = wanted, {"padding_idx": -1, "scale_grad_by_freq": False, "sparse": False}


_FAMILIES: tuple[tuple[frozenset[str], frozenset[str], Spell], ...] = (
    (RESHAPES, RESHAPES, _reshape),
    (frozenset({"permute"}), PERMUTATIONS, _permutation),
    (frozenset({f"adaptive_avg_pool{n}d" for n in (1, 2, 3)}), frozenset({"mean"}), _pool),
    (frozenset({"split_with_sizes"}), SPLITS, _split),
    (frozenset({"where"}), frozenset({"masked_fill"}), _masked_fill),
    (frozenset({"constant_pad_nd"}), frozenset({"pad"}), _pad),
    (frozenset({"clamp", "hardtanh"}), frozenset({"clamp", "clamp_min", "clamp_max"}), _clamped),
    (frozenset({"amax", "amin"}), frozenset({"max", "min"}), _reduced),
    (frozenset({"index_select", "embedding"}), frozenset({"index", "index_select", "embedding"}), _selected),
    (frozenset({"matmul", "mm"}), frozenset({"matmul", "mm", "bmm"}), _renamed),
    (frozenset({"maximum", "minimum"}), frozenset({"max", "min"}), _renamed),
    (frozenset({"logical_and", "logical_or", "logical_xor", "logical_not"}),
     frozenset({"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "__and__", "__or__", "__xor__"}), _renamed),
    (frozenset({"expand"}), frozenset({"expand_as"}), _renamed),
    (frozenset({"to"}), frozenset({"type_as"}), _renamed),
    (frozenset({"linalg_vector_norm"}), frozenset({"norm"}), _renamed),
    (frozenset({"layer_norm"}), frozenset({"native_layer_norm"}), _renamed),
)  # fmt: skip
