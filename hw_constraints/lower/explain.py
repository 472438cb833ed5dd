"""One operation's story in words: what every pass did to it, and why."""

from __future__ import annotations

from bitwright.hw_constraints.lower.array_steps import loop_lengths
from bitwright.hw_constraints.lower.program import LoweredGraph, LoweredOp, Pass
from bitwright.quant.graph import TensorRef

_DEFAULTS = {
    Pass.DECOMPOSE: "the target has the operator as it is",
    Pass.FUSE: "runs by itself: no pattern of the target begins with it here",
    Pass.PARTITION: "the accelerator runs it in low precision",
    Pass.LAYOUT: "its operands come in the order that it reads",
}


def explain(lowered: LoweredGraph, name: str) -> str:
    """The story of the operation that a name selects (`LoweredGraph.find`).

    Raises:
        InputError: no such operation; the message lists them.
    """
    op = lowered.find(name)
    block = op.block
    operators = " -> ".join(node.op for node in block.nodes) or "change of layout"
    lines = [f"{op.name}: {operators}" + (f", in module {block.module_path!r}" if block.module_path else "")]
    if block.source:
        lines.append(f"  {block.source}: {block.source.text}".rstrip(": "))
    lines.append(f"  runs on {block.engine or 'nothing'}, stretch {block.partition}" + _work(op))
    reasons: dict[Pass, list[str]] = {}
    for reason in op.reasons:
        reasons.setdefault(reason.by, []).append(reason.text)
    for step in Pass:
        texts = reasons.get(step) or ([_DEFAULTS[step]] if step in _DEFAULTS and block.on_accelerator else [])
        lines += [f"  {step + ':':<11} {text}" for text in texts]
    for what, refs in (("reads", block.reads), ("writes", block.writes)):
        lines += [f"  {what:<11} {_tensor(lowered, ref)}" for ref in refs]
    constants = sum(lowered.program.bytes_of(ref) for ref in block.constants)
    if constants:
        lines.append(f"  {'reads':<11} {constants:,} bytes of weights and other constants")
    return "\n".join(lines)


def _work(op: LoweredOp) -> str:
    if op.work is None:
        return ""
    lengths = {loop: length for loop, length in loop_lengths(op.work).items() if length > 1}
    nest = " x ".join(f"{length} {loop.replace('_', ' ')}" for loop, length in lengths.items())
    taps = op.work.y.kernel * op.work.x.kernel
    window = f" x {op.work.y.kernel}x{op.work.x.kernel} taps" if taps > 1 else ""
    return f"; {op.work.kind.replace('_', ' ')} of {nest or 'one element'}{window}, {op.work.macs:,} MACs"


def _tensor(lowered: LoweredGraph, ref: TensorRef) -> str:
    program, plan = lowered.program, lowered.memory
    shape = "x".join(str(size) for size in program.graph.tensors[ref].shape)
    if ref not in plan.tensors:
        return f"{ref} [{shape}]"
    address, storage = plan.tensors[ref]
    text = f"{ref} [{shape}], {storage.bits} bits, {storage.layout}, in {address.memory} at {address.offset:,}"
    root = program.stored(ref)
    view = f" (the bytes of {root})" if root != ref else ""
    why = plan.spilled.get(root)
    return text + view + (f"; {why}" if why else "")
