"""A target as a page that a hardware engineer can check: every statement with the number of its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bitwright.hw_constraints.target_types import Capability, Figure, Otherwise, Source, Target
from bitwright.quant.formats import IntFormat
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, ScaleKind

_BIAS = {
    BiasKind.INT32: "int32, scale = scale(input) * scale(weight), zero point 0",
    BiasKind.FLOAT32: "float32",
}
_OTHERS = {
    Otherwise.FLOAT: "run in floating point",
    Otherwise.HOST: "run on the processor beside the accelerator",
    Otherwise.REFUSED: "are refused by the toolchain",
}


class _Sources:
    """Numbers sources in the order in which the page needs them."""

    def __init__(self) -> None:
        self.numbers: dict[Source, int] = {}

    def mark(self, source: Source, *, verified: bool) -> str:
        """`[2]`, or `[2]?` for what was taken on trust."""
        number = self.numbers.setdefault(source, len(self.numbers) + 1)
        return f"[{number}]{'' if verified else '?'}"


def describe(target: Target) -> str:
    """The whole target as Markdown that also reads well as plain text."""
    sources = _Sources()
    parts = [
        _head(target),
        _hardware(target, sources),
        _numerics(target, sources),
        _operators(target, sources),
        _limits(target, sources),
        _unverified(target, sources),
    ]
    listed = [f"{number}. {source}" for source, number in sources.numbers.items()]
    return "\n\n".join(part for part in [*parts, "## Sources\n" + "\n".join(listed)] if part) + "\n"


def _head(target: Target) -> str:
    serves = ", ".join(each for each in Capability if each in target.capabilities)
    lacks = ", ".join(each for each in Capability if each not in target.capabilities)
    artifact = target.artifact
    opset = f", opset {artifact.opset}" if artifact.opset else ""
    lines = [
        f"# {target.id}, version {target.version}",
        target.description,
        "",
        f"- Serves: {serves}{f'; not: {lacks}' if lacks else ''}",
        f"- Artefact: {artifact.format}{opset}, for {', '.join(artifact.runtimes)}",
    ]
    if target.extends:
        lines.append(f"- Extends: {target.extends}")
    return "\n".join(lines)


def _hardware(target: Target, sources: _Sources) -> str:
    rows = [
        *(row for engine in target.engines.values() for row in _figures(engine.name, engine.figures, sources)),
        *(row for memory in target.memories.values() for row in _figures(memory.name, memory.figures, sources)),
    ]
    if not rows:
        return ""
    return "## Hardware\n" + _table(("unit", "figure", "value", "source"), rows)


def _figures(owner: str, figures: Mapping[str, Figure], sources: _Sources) -> Iterable[tuple[str, ...]]:
    for name, figure in figures.items():
        yield owner, name.replace("_", " "), str(figure.quantity), sources.mark(figure.source, verified=figure.verified)


def _numerics(target: Target, sources: _Sources) -> str:
    numerics = target.numerics
    rows = [("activations", *_spec(spec)) for spec in numerics.activations]
    rows += [("weights", *_spec(spec)) for spec in numerics.weights]
    rows += [(f"weights of {op}", *_spec(spec)) for op, specs in numerics.operator_weights.items() for spec in specs]
    floats = ", ".join(fmt.name for fmt in numerics.float_formats) or "none"
    return "\n".join(
        [
            f"## Numerics {sources.mark(numerics.source, verified=numerics.verified)}",
            _table(("tensor", "format", "values", "zero point", "scale"), rows),
            "",
            f"- Bias: {_BIAS[numerics.bias]}",
            f"- Floating point: {floats}",
            f"- The network's outputs: {'quantized' if numerics.quantize_outputs else 'floating point'}",
        ]
    )


def _spec(spec: QParamsSpec) -> tuple[str, str, str, str]:
    if isinstance(spec.format, IntFormat):
        low, high = spec.code_range
        values, zero = f"codes {low} to {high}", "0" if spec.symmetric else f"{low} to {high}"
    else:
        values, zero = f"±{spec.format.max_value:g} * scale", "none"
    kind = "powers of two" if spec.scale_kind is ScaleKind.POWER_OF_TWO else "float32"
    each = "output channel" if spec.granularity is Granularity.PER_CHANNEL else "tensor"
    return spec.format.name, values, zero, f"{kind}, one per {each}"


def _operators(target: Target, sources: _Sources) -> str:
    operators = target.operators
    shared = ", ".join(sorted(operators.shared_qparams)) or "none"
    lines = [
        f"## Operators {sources.mark(operators.source, verified=operators.verified)}",
        f"- In low precision: {', '.join(sorted(operators.quantized))}",
        f"- Passing codes on, one scale for inputs and outputs: {shared}",
        f"- Fused: {'; '.join(_chains(operators.fused_patterns)) or 'none'}",
    ]
    if operators.codes_only:
        lines.append(f"- Writing codes only, never real values: {', '.join(sorted(operators.codes_only))}")
    if operators.decomposed:
        apart = [
            f"{op} as {', '.join(each.parts)} {sources.mark(each.source, verified=each.verified)}"
            for op, each in operators.decomposed.items()
        ]
        lines.append(f"- Taken apart: {'; '.join(apart)}")
    if operators.refused:
        lines.append(f"- Refused: {', '.join(sorted(operators.refused))}")
    lines.append(f"- All others {_OTHERS[operators.others]}")
    if operators.single_partition:
        lines.append("- One partition: everything behind the first operator that is not listed runs on the host")
    return "\n".join(lines)


def _chains(patterns: Iterable[tuple[str, ...]]) -> list[str]:
    """Chains that differ in their first operator alone, on one line: `conv1d|conv2d -> relu`."""
    anchors: dict[tuple[str, ...], list[str]] = {}
    for first, *rest in patterns:
        anchors.setdefault(tuple(rest), []).append(first)
    return [" -> ".join(["|".join(firsts), *rest]) for rest, firsts in anchors.items()]


def _limits(target: Target, sources: _Sources) -> str:
    shapes = target.shapes
    lines = [
        "## Limits",
        f"- Open dimensions: {shapes.dynamic} {sources.mark(shapes.source, verified=shapes.verified)}",
    ]
    for each in target.constraints:
        mark = sources.mark(each.source, verified=each.verified)
        lines.append(f"- {', '.join(sorted(each.operators))}: `{each.require}`")
        lines.append(f"  {each.severity} otherwise: {each.because} {mark}")
    return "\n".join(lines)


def _unverified(target: Target, sources: _Sources) -> str:
    lines = [
        f"- {each.path} = {each.value} {sources.mark(each.source, verified=False)}" for each in target.unverified()
    ]
    return "## Not verified (marked with ?)\n" + "\n".join(lines) if lines else ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table whose columns line up."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
