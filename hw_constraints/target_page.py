"""A target as a page that a hardware engineer can check: every statement with the number of its source."""

from __future__ import annotations

from collections.abc import Iterable

from bitwright.hw_constraints.target_page_hardware import hardware
from bitwright.hw_constraints.target_page_parts import Sources, table
from bitwright.hw_constraints.target_types import Capability, Otherwise, Target
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


def describe(target: Target) -> str:
    """The whole target as Markdown that also reads well as plain text."""
    sources = Sources()
    parts = [
        _head(target),
        *hardware(target, sources),
        _numerics(target, sources),
        _operators(target, sources),
        _limits(target, sources),
        _unverified(target, sources),
    ]
    return "\n\n".join(part for part in [*parts, sources.listed()] if part) + "\n"


def _head(target: Target) -> str:
    serves = ", ".join(each for each in Capability if each in target.capabilities)
    lacks = [each for each in Capability if each not in target.capabilities]
    artifact = target.artifact
    opset = f", opset {artifact.opset}" if artifact.opset else ""
    lines = [
        f"# {target.id}, version {target.version}",
        target.description,
        "",
        f"- Serves: {serves}",
        *(f"- Does not serve {each}: {target.missing.get(each, 'its file does not say enough')}" for each in lacks),
        f"- Artefact: {artifact.format}{opset}, for {', '.join(artifact.runtimes) or 'a toolchain that is not public'}",
    ]
    if target.extends:
        lines.append(f"- Extends: {target.extends}")
    return "\n".join(lines)


def _numerics(target: Target, sources: Sources) -> str:
    numerics = target.numerics
    rows = [("activations", *spec_cells(spec)) for spec in numerics.activations]
    rows += [("weights", *spec_cells(spec)) for spec in numerics.weights]
    rows += [
        (f"weights of {op}", *spec_cells(spec)) for op, specs in numerics.operator_weights.items() for spec in specs
    ]
    floats = ", ".join(fmt.name for fmt in numerics.float_formats) or "none"
    return "\n".join(
        [
            f"## Numerics {sources.mark(numerics.source, verified=numerics.verified)}",
            table(("tensor", "format", "values", "zero point", "scale"), rows),
            "",
            f"- Bias: {_BIAS[numerics.bias]}",
            f"- Floating point: {floats}",
            f"- The network's outputs: {'quantized' if numerics.quantize_outputs else 'floating point'}",
        ]
    )


_SCALES = {
    ScaleKind.FLOAT32: "float32",
    ScaleKind.POWER_OF_TWO: "powers of two",
    ScaleKind.E8M0: "powers of two (E8M0)",
    ScaleKind.FLOAT8_E4M3: "float8 E4M3 times a float32 per tensor",
}


def spec_cells(spec: QParamsSpec) -> tuple[str, str, str, str]:
    """Format, values, zero point and scale of one permitted way to keep a tensor."""
    if isinstance(spec.format, IntFormat):
        low, high = spec.code_range
        values, zero = f"codes {low} to {high}", "0" if spec.symmetric else f"{low} to {high}"
    else:
        values, zero = f"±{spec.format.max_value:g} * scale", "none"
    each = {
        Granularity.PER_TENSOR: "tensor",
        Granularity.PER_CHANNEL: "output channel",
        Granularity.PER_BLOCK: f"{spec.block_size} values",
    }[spec.granularity]
    dynamic = ", from the values as they are computed" if spec.dynamic else ""
    return spec.format.name, values, zero, f"{_SCALES[spec.scale_kind]}, one per {each}{dynamic}"


def _operators(target: Target, sources: Sources) -> str:
    operators = target.operators
    shared = ", ".join(sorted(operators.shared_qparams)) or "none"
    lines = [
        f"## Operators {sources.mark(operators.source, verified=operators.verified)}",
        f"- In low precision: {', '.join(sorted(operators.quantized))}",
        f"- Passing codes on, one scale for inputs and outputs: {shared}",
        f"- Fused: {'; '.join(chains_spelled(operators.fused_patterns)) or 'none'}",
    ]
    if operators.codes_only:
        lines.append(f"- Writing codes only, never real values: {', '.join(sorted(operators.codes_only))}")
    if tables := operators.table_lookups:
        mark = sources.mark(tables.source, verified=tables.verified)
        lines.append(f"- Looked up by the operator before them: {', '.join(sorted(tables.of))} {mark}")
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


def chains_spelled(patterns: Iterable[tuple[str, ...]]) -> list[str]:
    """Chains that differ in one operator alone on one line: `conv1d|conv2d -> batch_norm -> relu|hardtanh`."""
    anchors: dict[tuple[str, ...], list[str]] = {}
    for first, *rest in patterns:
        anchors.setdefault(tuple(rest), []).append(first)
    ends: dict[tuple[str, ...], list[str]] = {}
    for tail, firsts in anchors.items():
        ends.setdefault(("|".join(firsts), *tail[:-1]), []).append(tail[-1])
    return [" -> ".join([*start, "|".join(lasts)]) for start, lasts in ends.items()]


def _limits(target: Target, sources: Sources) -> str:
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


def _unverified(target: Target, sources: Sources) -> str:
    lines = [
        f"- {each.path} = {each.value} {sources.mark(each.source, verified=False)}" for each in target.unverified()
    ]
    return "## Not verified (marked with ?)\n" + "\n".join(lines) if lines else ""
