"""Which weight of a network gets which pattern: one for all, or one for each block."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from bitwright.qat.sparsity.patterns import Pattern
from bitwright.quant.errors import InputError

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What trains with zeros.

    Attributes:
        weights: those that have a pattern, each once.
        patterns: theirs, by the same paths.
        dense: why the others have none.
    """

    weights: Mapping[str, nn.Parameter]
    patterns: Mapping[str, Pattern]
    dense: Mapping[str, str]


def parsed(asked: str | Mapping[str, str], share: float | None) -> dict[str, Pattern]:
    """Patterns by the path of a module for whose layers they are; "" is the whole model.

    Args:
        asked: one pattern, or several by path.
        share: of blocks that are zero at the end.

    Raises:
        InputError: no pattern, or a share that says nothing about any of them.
    """
    if isinstance(asked, str):
        return {"": Pattern.parse(asked, share=share)}
    if share is not None and asked and all(":" in text for text in asked.values()):
        texts = " and ".join(sorted(set(asked.values())))
        raise InputError(f"share = {share}: patterns {texts} say how many weights become zero; leave it out")
    return {path: Pattern.parse(text, share=None if ":" in text else share) for path, text in asked.items()}


def spelled(patterns: Mapping[str, Pattern]) -> str:
    """All patterns in words."""
    return " and ".join(sorted({str(each) for each in patterns.values()}))


def assign(model: nn.Module, patterns: Mapping[str, Pattern], skip: Collection[str]) -> Assignment:
    """Finds the weights that can have what is asked for.

    Args:
        model: the network.
        patterns: by the path of a module; of two that lie in each other the inner one's counts.
        skip: paths of modules whose weights stay dense.

    Raises:
        InputError: a path is no module, or no weight can have its pattern.
    """
    there = {name for name, _ in model.named_modules()}
    for what, named in (("skip", set(skip)), ("pattern", set(patterns))):
        if unknown := named - there:
            raise InputError(f"{what} names no module of this model: {', '.join(sorted(unknown))}")
    weights: dict[str, nn.Parameter] = {}
    chosen: dict[str, Pattern] = {}
    dense: dict[str, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, _LAYERS):
            continue
        path, weight = f"{name}.weight" if name else "weight", module._parameters.get("weight")
        pattern = _innermost(name, patterns)
        reason = (
            "it is skipped" if name in skip
            else "no pattern is given for it" if pattern is None
            else "it is computed from other parameters" if weight is None
            else pattern.misfit(weight.shape)
        )  # fmt: skip
        if reason or weight is None or pattern is None:
            dense[path] = reason
            continue
        first = next((other for other, each in weights.items() if each is weight), None)
        if first is None:
            weights[path], chosen[path] = weight, pattern
        elif chosen[first] != pattern:
            raise InputError(
                f"{first} and {path} are one weight, and patterns {chosen[first]} and {pattern} are given for it; "
                "give it one"
            )
    if not weights:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(dense.items())[:3])
        raise InputError(f"no weight can have the pattern {spelled(patterns)}: {reasons or 'there is no layer'}")
    return Assignment(weights=weights, patterns=chosen, dense=dense)


def _innermost(name: str, patterns: Mapping[str, Pattern]) -> Pattern | None:
    around = [path for path in patterns if not path or f"{name}.".startswith(f"{path}.")]
    return patterns[max(around, key=len)] if around else None
