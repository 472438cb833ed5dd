"""The table of translators, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitwright.quant.errors import InputError
from bitwright.quant.export.tflite_builder import Step, TfliteBuilder, Translator
from bitwright.quant.export.tflite_file import schema
from bitwright.quant.graph import Node, TensorRef

Write = Callable[[TfliteBuilder, Step], None]
TRANSLATORS: dict[str, Translator] = {}
_CLAMPS = {(0.0, float("inf")): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def translates(*ops: str, in_codes: bool = True) -> Callable[[Write], Write]:
    """Registers a translator for operator types; those without a form on codes are written on real values."""

    def register(function: Write) -> Write:
        for op in ops:
            if op in TRANSLATORS:
                raise ValueError(f"operator {op!r} has two translations")
            TRANSLATORS[op] = Translator(write=function, in_codes=in_codes)
        return function

    return register


def unsupported(node: Node, what: str) -> InputError:
    """The error for a variant of an operator that TensorFlow Lite cannot say."""
    return InputError(f"{node.source or node.module_path or node.name}: {node.op} with {what} has no .tflite form")


def bounds(node: Node) -> tuple[float, float] | None:
    """The interval to which an activation clamps; None for anything else."""
    match node.op:
        case "relu":
            return 0.0, float("inf")
        case "relu6":
            return 0.0, 6.0
        case "hardtanh" | "clamp" | "clamp_min" | "clamp_max":
            low = node.attributes.get("min_val", node.attributes.get("min"))
            high = node.attributes.get("max_val", node.attributes.get("max"))
            fixed = len(node.tensors) == 1
            return (
                (float(-float("inf") if low is None else low), float(float("inf") if high is None else high))
                if fixed
                else None
            )
    return None


def clamp_operator(node: Node) -> str | None:
    """TensorFlow Lite's name of an activation that clamps; None where it has none."""
    interval = bounds(node)
    return None if interval is None else _CLAMPS.get(interval)


def fused(step: Step) -> int:
    """The activation that an operator does along with its own work.

    Raises:
        InputError: something else than a clamp of TensorFlow Lite's stands behind it.
    """
    names = [clamp_operator(node) for node in step.followers]
    if len(names) > 1 or None in names:
        raise unsupported(step.node, f"{' and '.join(node.op for node in step.followers)} fused behind it")
    return int(getattr(schema().ActivationFunctionType, names[0] or "NONE") if names else 0)


def spread(value: int | Sequence[int], rank: int) -> list[int]:
    """One value for each spatial dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def shape_of(b: TfliteBuilder, ref: TensorRef | None) -> tuple[int, ...]:
    """The static shape of an operand that is there."""
    assert ref is not None
    return b.shape(ref)
