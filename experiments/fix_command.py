"""What `bitwright lint --fix` does: the fixes that a network takes, the change to make by hand, the fixed network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.hw_constraints.finding import Finding
    from bitwright.hw_constraints.fix import AppliedFix, FixedModel, RefusedFix
    from bitwright.hw_constraints.modelled_time import ModelledTime
    from bitwright.quant.parity import TensorParity


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
    if out is not None:
        _check_out(out)
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
        print(fixes_text(fixed) + (f"\nsaved, for torch.export.load: {out}" if out else ""))
    return 1 if any(each.severity == "error" for each in fixed.after) else 0


def _check_out(out: Path) -> None:
    """Before minutes of work: the name is a program's and its folder is there."""
    if out.suffix != ".pt2":
        raise InputError(
            f"--out = {str(out)!r}; the fixed network is saved as a program: give a name that ends in .pt2"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(out, error) from None
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise _not_writable(out, "it is a folder" if out.is_dir() else "its folder takes no new files")


def _not_writable(out: Path, why: OSError | str) -> InputError:
    reason = why if isinstance(why, str) else (why.strerror or str(why))
    return InputError(f"--out = {str(out)!r} cannot be written: {reason}; give another place")


def save(fixed: FixedModel, example: tuple[Any, ...], out: Path) -> None:
    """Writes the fixed network as an exported program, which `torch.export.load` reads.

    Raises:
        InputError: the file cannot be written.
    """
    import torch

    from bitwright.quant.to_module import to_module

    program = torch.export.export(to_module(fixed.captured), example, strict=False)
    try:
        with out.open("wb") as file:
            torch.export.save(program, file)
    except OSError as error:
        raise _not_writable(out, error) from None


def fixes_text(fixed: FixedModel) -> str:
    """All fixes as plain text: what was made and why that is sound, the change to make by hand, what was refused.

    Fixes of one kind on one line of the source are one block: blocks of a network share their lines.
    """
    from bitwright.hw_constraints.finding_text import summary

    made: dict[tuple[str, str, str, str], list[AppliedFix]] = {}
    for applied in fixed.applied:
        made.setdefault((applied.fix, *_kind(applied.finding)), []).append(applied)
    refused: dict[tuple[str, str, str], list[RefusedFix]] = {}
    for each in fixed.refused:
        refused.setdefault((each.fix, each.finding.rule, each.reason), []).append(each)
    blocks = [*map(_applied_text, made.values()), *map(_refused_text, refused.values())]
    count = len(fixed.applied)
    left = f"{len(fixed.after)} after ({summary(fixed.after)})" if fixed.after else "none after"
    blocks.append(f"{count} fix{'' if count == 1 else 'es'} made: {len(fixed.before)} findings before, {left}")
    if fixed.parity is not None:
        blocks[-1] += f"\nthe fixed network against the original: {fixed.parity}"
    return "\n\n".join(blocks)


def _kind(finding: Finding) -> tuple[str, str, str]:
    return finding.rule, finding.found, _place(finding)


def _place(finding: Finding) -> str:
    from bitwright.hw_constraints.lint_report.baseline import relative

    return f"{relative(finding.source.file)}:{finding.source.line}" if finding.source else finding.node


def _applied_text(same: Sequence[AppliedFix]) -> str:
    first = same[0]
    modules = _some([each.finding.module_path for each in same if each.finding.module_path])
    where = f"{_place(first.finding)}{f' ({modules})' if modules else ''}"
    lines = [f"fixed[{first.fix}] {where}: {first.summary}", f"removes: {first.finding.rule}: {first.finding.found}"]
    lines.append(f"parity:  {_parity_text([tensor for each in same for tensor in each.here]) or first.parity}")
    if first.time is not None:
        others = f", with {first.together - 1} more like it" if first.together > 1 else ""
        lines.append(f"time:    {_time_text(*first.time)}{others}")
    return "\n".join([*lines, first.diff.rstrip()]).rstrip()


def _parity_text(here: Sequence[TensorParity]) -> str:
    """The worst of the rewritten tensors; empty when there is none to compare."""
    if not here:
        return ""
    worst = max(here, key=lambda each: each.max_rel)
    if len(here) > 1 and all(each.bit_equal for each in here):
        return f"bit for bit equal, {len(here)} tensors"
    return str(worst) if len(here) == 1 else f"{worst}, the worst of {len(here)} tensors"


def _time_text(before: ModelledTime, after: ModelledTime) -> str:
    """Two totals; where they are of different operators, that and not a saving is said."""
    if before.unknown == after.unknown:
        if after.us == before.us:
            return f"{after.us:.4g} us modelled, as before"
        return f"{before.us:.4g} -> {after.us:.4g} us modelled ({after.us / before.us - 1:+.2%})"
    return (
        f"{before.us:.4g} us and {before.unknown} operators without a figure -> "
        f"{after.us:.4g} us and {after.unknown} without one (modelled)"
    )


def _refused_text(same: Sequence[RefusedFix]) -> str:
    first = same[0]
    places = _some([_place(each.finding) for each in same])
    off = [each.approximation.sqnr for each in same if each.approximation is not None]
    why = f"it is an approximation ({min(off):.1f} dB at worst); --approximate makes it" if off else first.reason
    return f"not made[{first.fix}] for {first.finding.rule} at {places}: {why}"


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first few different names, and how many more there are."""
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - most} more" if len(different) > most else ""
    return ", ".join(different[:most]) + more


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
                "not_modelled": [time.unknown for time in each.time] if each.time else None,
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
