"""What `bitwright lint --fix` does: the fixes that a network takes, the change to make by hand, the fixed network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.hw_constraints.fix import AppliedFix, FixedModel


def fix_model(
    model: str,
    target_name: str | None,
    inputs: Sequence[str],
    *,
    out: Path | None = None,
    approximate: bool = False,
) -> FixedModel:
    """Captures a network, fixes what can be fixed for a target, and saves the result; no source file is changed.

    Args:
        model: an entry, or a recipe.
        target_name: a target; a recipe's own when not given.
        inputs: example inputs of an entry, as `1x3x224x224` or `1x20:int64`.
        out: where to save the fixed network as a `.pt2` program; None saves nothing.
        approximate: also make fixes that change results.

    Raises:
        InputError: no such network, target or shape, a network that cannot be captured whole, or an ONNX file.
        CaptureError: the network cannot be captured whole.
    """
    from bitwright.experiments.lint_command import network_of
    from bitwright.hw_constraints.fix import fix
    from bitwright.hw_constraints.target import load_target
    from bitwright.quant.capture import capture
    from bitwright.quant.parity import Inputs
    from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

    if model.endswith(".onnx"):
        raise InputError(f"MODEL = {model!r}; --fix rewrites a network of PyTorch: package.module:function or a recipe")
    if out is not None and out.suffix != ".pt2":
        raise InputError(
            f"--out = {str(out)!r}; the fixed network is saved as a program: give a name that ends in .pt2"
        )
    network, example, names = network_of(model, [target_name] if target_name else (), inputs)
    captured = fold_batch_norm(capture(network, example))
    # A shape on the command line gives made-up values; only a recipe's examples are recorded.
    recorded = [] if inputs else [Inputs(args=example)]
    fixed = fix(captured, load_target(names[0]), recorded=recorded, approximate=approximate)
    if out is not None:
        save(fixed, example, out)
    return fixed


def print_fixes(
    model: str, targets: Sequence[str], inputs: Sequence[str], *, out: Path | None, approximate: bool, json: bool
) -> int:
    """Fixes a network for one target and prints what was done.

    Returns:
        The exit code: 1 when errors are left.

    Raises:
        InputError: several targets, or what `fix_model` refuses.
    """
    from bitwright.experiments.tables import print_json

    if len(targets) > 1:
        raise InputError(f"--target = {', '.join(targets)}; --fix rewrites a network for one target at a time")
    fixed = fix_model(model, targets[0] if targets else None, inputs, out=out, approximate=approximate)
    if json:
        print_json(fixes_json(fixed))
    else:
        print(fixes_text(fixed) + (f"\n{out}" if out else ""))
    return 1 if any(each.severity == "error" for each in fixed.after) else 0


def save(fixed: FixedModel, example: tuple[Any, ...], out: Path) -> None:
    """Writes the fixed network as an exported program, which `torch.export.load` reads."""
    import torch

    from bitwright.quant.to_module import to_module

    program = torch.export.export(to_module(fixed.captured), example, strict=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, str(out))


def fixes_text(fixed: FixedModel) -> str:
    """All fixes as plain text: what was made and why that is sound, the change to make by hand, what was refused."""
    blocks = [_applied_text(each) for each in fixed.applied]
    tally: dict[tuple[str, str, str], int] = {}
    for each in fixed.refused:
        key = each.fix, each.finding.rule, each.reason
        tally[key] = tally.get(key, 0) + 1
    for (name, rule, reason), count in tally.items():
        times = f" ({count} places)" if count > 1 else ""
        blocks.append(f"not made[{name}] for {rule}{times}: {reason}")
    removed = len(fixed.before) - len(fixed.after)
    blocks.append(f"{len(fixed.applied)} fixes made, {len(fixed.before)} findings before, {removed} fewer after")
    if fixed.parity is not None:
        blocks[-1] += f"; the fixed network against the original: {fixed.parity}"
    return "\n\n".join(blocks)


def _applied_text(each: AppliedFix) -> str:
    place = f" {each.finding.source}" if each.finding.source else ""
    here = "; ".join(str(tensor) for tensor in each.here)
    lines = [f"fixed[{each.fix}]{place}: {each.summary}", f"removes: {each.finding.rule}: {each.finding.found}"]
    lines.append(f"parity:  {here or each.parity}")
    if each.time is not None:
        before, after = each.time
        together = f" with {each.together} fixes like it" if each.together > 1 else ""
        lines.append(f"time:    {before.us:.1f} -> {after.us:.1f} us modelled{together}")
    return "\n".join([*lines, each.diff.rstrip()]).rstrip()


def fixes_json(fixed: FixedModel) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "applied": [
            {
                "fix": each.fix,
                "exact": each.exact,
                "finding": each.finding.to_json(),
                "max_error": max((tensor.max_rel for tensor in each.here), default=each.parity.max_rel),
                "sqnr_db": each.parity.sqnr,
                "bit_equal": all(tensor.bit_equal for tensor in each.here),
                "modelled_us": [time.us for time in each.time] if each.time else None,
                "together": each.together,
                "diff": each.diff,
            }
            for each in fixed.applied
        ],
        "refused": [
            {"fix": each.fix, "finding": each.finding.to_json(), "reason": each.reason} for each in fixed.refused
        ],
        "findings_before": len(fixed.before),
        "findings_after": len(fixed.after),
    }
