"""A comparison of links as text, as JSON and as SARIF."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bitwright.experiments.parity_command import ParityReport
from bitwright.experiments.parity_document import (
    ComparedLayer,
    ComparedPair,
    ComparedResult,
    FirstBreak,
    ParityDocument,
)
from bitwright.quant.parity.locate import LayerParity, LinkParity
from bitwright.quant.sqnr import EXACT_DB

_SHOWN = 10  # breaks of a pair in the text; all are in the JSON
_OTHER_WEIGHTS = (
    "No layer is to blame, so none was compared: the second was trained otherwise, or its channels were equalized. "
    "Give the run's folder in place of its recipe, whose network has not been trained; or two files of one training."
)


def parity_text(report: ParityReport) -> str:
    """What a stranger needs: each pair in a line, then the breaks of the first that breaks, and what to do."""
    if report.is_another_network:
        return f"The two sides are not one network: {report.weights}.\n{_OTHER_WEIGHTS}"
    lines = [_pair_line(pair) for pair in report.chain.pairs]
    for pair in report.chain.pairs:
        if not pair.agrees:
            lines += ["", *_break_lines(pair, report)]
    if report.weights is not None and report.weights.names:
        lines += ["", f"{report.weights} between the two sides"]
    if report.searched:
        lines += ["", *report.searched]
    lines += ["", _verdict(report)]
    return "\n".join(lines)


def _pair_line(pair: LinkParity) -> str:
    if pair.problem:
        return f"cannot run  {pair.second}"
    judged = [each for each in pair.layers if each.own is not None]
    word = "agrees    " if pair.agrees else "BREAKS    "
    if pair.halved:
        return f"{word}  {pair.first} → {pair.second}  (by halves, in {pair.halved} partial runs)"
    closest = max((each.own.severity for each in judged if each.own), default=0.0)
    how = f"{len(judged)} layers" + (f", the worst at {100 * closest:.0f} % of what is allowed" if pair.agrees else "")
    if not judged:
        how = "results alone: no tensor inside is known to both"
    return f"{word}  {pair.first} → {pair.second}  ({how})"


def _break_lines(pair: LinkParity, report: ParityReport) -> Iterator[str]:
    if pair.problem:
        yield f"{pair.second} cannot run:\n  {pair.problem}"
        return
    yield f"{pair.first} → {pair.second}: {_count(len(pair.breaks), 'layer breaks', 'layers break')}"
    for layer in pair.breaks[:_SHOWN]:
        yield from _layer_lines(layer, pair, report)
    if len(pair.breaks) > _SHOWN:
        yield f"  and {len(pair.breaks) - _SHOWN} more (--json lists all)"
    for name, judged in pair.results.items():
        if not judged.agrees:
            yield f"  {name}: {judged.error}" + (f"; allowed: {judged.allowed}" if judged.allowed else "")
    if advice := report.advice.get(pair.second):
        yield f"  what to do: {advice}"


def _layer_lines(layer: LayerParity, pair: LinkParity, report: ParityReport) -> Iterator[str]:
    tensor, own = layer.tensor, layer.own
    assert own is not None
    made = f" ({tensor.op})" if tensor.op else " (input)"
    yield f"  {tensor.name}{made}{'  ' + tensor.source if tensor.source else ''}"
    yield f"    given the same inputs: {own.error}; allowed: {own.allowed or 'none'}"
    if own.where:
        yield f"    all that is off lies in {own.where}"
    if layer.other_name != tensor.name:
        yield f"    called {layer.other_name} there"
    if script := report.reproducers.get((pair.second, tensor.name)):
        yield f"    reproducer: {script}"


def _verdict(report: ParityReport) -> str:
    inputs = _count(report.inputs, "input", "inputs")
    restless = sorted({name for pair in report.chain.pairs for name in pair.unsteady})
    note = f"\nnot judged, since they differ from run to run: {', '.join(restless)}" if restless else ""
    first = report.chain.first_break
    if first is None:
        return f"Every link computes the same network, on {inputs}.{note}"
    if first.problem:
        return f"{first.second} cannot run; what could is judged above, on {inputs}.{note}"
    where = f" at {first.breaks[0].tensor.name}" if first.breaks else " in its results"
    return f"First break: {first.first} → {first.second}{where}, on {inputs}.{note}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def parity_json(report: ParityReport) -> dict[str, Any]:
    """Everything, layer by layer, as `parity_document` has it."""
    first = report.chain.first_break
    document = ParityDocument(
        agrees=report.agrees,
        unlike_weights=report.weights.names if report.weights is not None else (),
        bisected=report.searched,
        inputs=report.inputs,
        first_break=None if first is None else _first_break(first, report),
        pairs=tuple(_pair_of(pair, report) for pair in report.chain.pairs),
    )
    return document.model_dump(mode="json", by_alias=True)


def _first_break(pair: LinkParity, report: ParityReport) -> FirstBreak:
    layer = pair.breaks[0].tensor.name if pair.breaks else None
    return FirstBreak(origin=pair.first, to=pair.second, layer=layer, advice=report.advice.get(pair.second, ""))


def _pair_of(pair: LinkParity, report: ParityReport) -> ComparedPair:
    return ComparedPair(
        origin=pair.first,
        to=pair.second,
        agrees=pair.agrees,
        problem=pair.problem,
        unsteady=pair.unsteady,
        tensors_of_one_only=pair.not_joined,
        layers=tuple(_layer_of(layer, pair, report) for layer in pair.layers),
        results={
            name: ComparedResult(agrees=each.agrees, error=each.error, allowed=each.allowed, sqnr_db=_db(each.sqnr_db))
            for name, each in pair.results.items()
        },
    )


def _layer_of(layer: LayerParity, pair: LinkParity, report: ParityReport) -> ComparedLayer:
    own, script = layer.own, report.reproducers.get((pair.second, layer.tensor.name))
    return ComparedLayer(
        tensor=layer.tensor.name,
        other_name=layer.other_name,
        op=layer.tensor.op,
        module_path=layer.tensor.module_path,
        source=layer.tensor.source,
        agrees=layer.agrees,
        error=own.error if own else None,
        allowed=own.allowed if own else None,
        where=own.where if own else "",
        own_sqnr_db=_db(own.sqnr_db) if own else None,
        cumulative_sqnr_db=_db(layer.cumulative_db),
        reproducer=str(script) if script else None,
    )


def _db(value: float) -> float:
    """JSON has no infinity."""
    return min(value, EXACT_DB)


def parity_sarif(report: ParityReport) -> dict[str, Any]:
    """Breaks as SARIF results, on the user's own lines."""
    from bitwright.hw_constraints.lint_report.report import review
    from bitwright.hw_constraints.lint_report.sarif import sarif_log

    rules = {"parity": "a layer computes something else than the network that it was made from"}
    return sarif_log(review(list(_findings(report)), known_rules=tuple(rules)), rules)


def _findings(report: ParityReport) -> Iterator[Any]:
    from bitwright.hw_constraints.finding import Finding, Severity
    from bitwright.quant.graph import SourceLine

    for pair in report.chain.pairs:
        for layer in pair.breaks:
            file, _, line = layer.tensor.source.rpartition(":")
            assert layer.own is not None
            yield Finding(
                rule="parity",
                severity=Severity.ERROR,
                node=layer.tensor.name,
                found=f"{layer.own.error}, from {pair.first}",
                allowed=layer.own.allowed or "none",
                suggestion=report.advice.get(pair.second, ""),
                source=SourceLine(file, int(line)) if file and line.isdigit() else None,
                module_path=layer.tensor.module_path,
                target=pair.second,
            )
