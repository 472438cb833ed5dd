"""The regions of a network as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitwright.experiments.tables import print_table
from bitwright.quant.capture_failure import CaptureFailure
from bitwright.quant.regions import Region, Regions

_WHOLE = "(the model)"


def print_regions(found: Regions) -> None:
    """What is captured with its share, what stays eager with the line that stands in the way, and the sums."""
    heads = ("region", "class", "calls", "MACs", "parameters", "time", "operators", "inputs")
    print_table(heads, [_row(found, region) for region in found.regions], title="captured")
    if found.eager:
        print()
        rows = [
            (each.module_path or _WHOLE, each.module_type, *_failure_cells(failure))
            for each in found.eager
            for failure in each.failures
        ]
        print_table(("stays eager", "class", "why", "where"), rows)
    print()
    shares = f"{found.mac_share:.1%} of MACs, {found.parameter_share:.1%} of parameters, {found.time_share:.1%} of time"
    count = len(found.regions)
    what = "the model is captured whole" if found.is_whole else f"{count} region{'' if count == 1 else 's'}"
    print(what if found.is_whole else f"{what}: {shares}")


def regions_json(found: Regions) -> dict[str, Any]:
    """The same as one JSON document; shares lie between 0 and 1."""
    return {
        "whole": found.is_whole,
        "mac_share": found.mac_share,
        "parameter_share": found.parameter_share,
        "time_share": found.time_share,
        "macs": found.total.macs,
        "parameters": found.parameters,
        "regions": [
            {
                "name": region.name,
                "module": region.module_path,
                "class": region.module_type,
                "calls": region.calls,
                "macs": region.cost.macs,
                "seconds": region.cost.seconds,
                "parameters": region.parameters,
                "operators": len(region.captured.graph.nodes),
                "inputs": _inputs(region),
            }
            for region in found.regions
        ],
        "eager": [
            {
                "module": each.module_path,
                "class": each.module_type,
                "failures": [_failure_json(failure) for failure in each.failures],
            }
            for each in found.eager
        ],
    }


def _row(found: Regions, region: Region) -> tuple[str, ...]:
    macs = f"{region.cost.macs / found.total.macs:.1%}" if found.total.macs else "–"
    parameters = f"{region.parameters / found.parameters:.1%}" if found.parameters else "–"
    time = f"{region.cost.seconds / found.total.seconds:.1%}"
    inputs = ", ".join(f"{name} {text}" for name, text in _inputs(region).items())
    operators = str(len(region.captured.graph.nodes))
    return (
        region.name or _WHOLE,
        region.module_type,
        str(region.calls),
        macs,
        parameters,
        time,
        operators,
        inputs,
    )


def _inputs(region: Region) -> Mapping[str, str]:
    """Type and shape of each input by its name, such as `float32 1x3x64x96`."""
    tensors = region.captured.graph.tensors
    return {
        ref.module_path.removeprefix("$"): f"{tensors[ref].dtype} {'x'.join(map(str, tensors[ref].shape))}".rstrip()
        for ref in region.captured.graph.inputs
    }


def _failure_cells(failure: CaptureFailure) -> tuple[str, str]:
    where = f"{failure.source}: {failure.source.text}" if failure.source else "–"
    return failure.reason, where


def _failure_json(failure: CaptureFailure) -> dict[str, Any]:
    source = failure.source
    return {
        "reason": failure.reason,
        "file": source.file if source else None,
        "line": source.line if source else None,
        "text": source.text if source else None,
        "suggestion": failure.suggestion,
        "data_dependent": failure.data_dependent,
    }
