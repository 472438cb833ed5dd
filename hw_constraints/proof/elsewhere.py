"""Proof from elsewhere: what another tool, on hardware that is not here, says that it made of a file's layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bitwright.hw_constraints.backends import ExecutedNode, KernelTime
from bitwright.hw_constraints.proof.case import LayerCase
from bitwright.hw_constraints.proof.file_names import FileNames
from bitwright.hw_constraints.proof.judging import Judge, references_of
from bitwright.hw_constraints.proof.macs import weight_position
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph, read_onnx
from bitwright.hw_constraints.proof.probe import Reason
from bitwright.hw_constraints.proof.report import ProofReport
from bitwright.hw_constraints.proof.tools.base import Tool, ToolReport, get_tool, list_tools, read_with
from bitwright.hw_constraints.proof.tools.report_file import ReportFile, read_report_file
from bitwright.hw_constraints.proof.trace import LAYOUT_OPERATORS, Trace, join_kernels, tag
from bitwright.quant.errors import InputError

_MOST_STRANGE = 0.5  # of the kernels; beyond, the report is of another network


def prove_from(path: Path, reports: Sequence[Path], *, tool: str | None = None) -> ProofReport:
    """Says what became of each layer of a file by another tool's report of it.

    Args:
        path: the ONNX file that the tool ran.
        reports: the files that it wrote (`Tool.how` says how); which is which is told by their content.
        tool: its name; found from the files when not given.

    Raises:
        InputError: a file is missing, cut off, not one of the tool's, or of another network.
    """
    if not reports:
        raise InputError("--from: give the files that the tool wrote; `--how TOOL` prints the command that makes them")
    graph = read_onnx(path)
    files = [read_report_file(each) for each in reports]
    reader, roles = _assign(files, tool)
    said = read_with(reader, roles)
    names = ", ".join(str(each) for each in reports)
    strange = _unknown_kernels(graph, said)
    _check_network(graph, said, strange, names)
    kernels, executed, shapes = _tagged(graph, said)
    trace = join_kernels(graph, kernels, executed, is_complete=False)
    _check_shapes(graph, trace, shapes, names)
    timed = any(each.time_us for each in said.kernels)
    unjoined = tuple(each for each in said.kernels if each.name in strange and (each.time_us or not timed))
    return ProofReport(
        file=str(path),
        runtime=reader.name,
        version=said.version,
        settings={},
        machine=None,
        device=said.device,
        layers=Judge(graph, trace, references_of(path), partial(_explain, reader.title)).layers(),
        total_us=trace.total_us,
        origin=said.origin,
        reports=tuple(str(each) for each in reports),
        wall_us=said.wall_us,
        unjoined=unjoined,
        notes=said.notes,
    )


def _assign(files: Sequence[ReportFile], tool: str | None) -> tuple[Tool, Mapping[str, ReportFile]]:
    """The tool whose files these are, and which of them is which."""
    tools = [get_tool(name) for name in ([tool] if tool else list_tools())]
    for reader in tools:
        found = [(reader.role(each), each) for each in files]
        if all(role is None for role, _ in found):
            continue
        for role, file in found:
            if role is None:
                raise InputError(f"{file.path}: is no report of {reader.title}, as {_other(found).path} is")
        roles = {role: file for role, file in found if role is not None}
        if len(roles) < len(files):
            first, second = next((a, b) for i, a in enumerate(found) for b in found[:i] if a[0] == b[0])
            raise InputError(f"{first[1].path} and {second[1].path}: both are the {first[0]}; give one of each")
        return reader, roles
    titles = ", ".join(f"{each.title} ({each.name})" for each in tools)
    raise InputError(
        f"{files[0].path}: is no report of {titles}; `bitwright prove FILE --how TOOL` says how to make one"
    )


def _other(found: Sequence[tuple[str | None, ReportFile]]) -> ReportFile:
    return next(file for role, file in found if role is not None)


def _unknown_kernels(graph: OnnxGraph, said: ToolReport) -> frozenset[str]:
    """Kernels none of whose names is one of the file's."""
    names = FileNames(graph)
    return frozenset(
        node.name
        for node in said.executed
        if node.op not in LAYOUT_OPERATORS
        and not any(map(names.is_known, (*(node.originals or (node.name,)), *node.outputs)))
    )


def _tagged(
    graph: OnnxGraph, said: ToolReport
) -> tuple[list[KernelTime], list[ExecutedNode], dict[str, tuple[int, ...]]]:
    """Kernels, executed nodes and shapes under names that hold the file's tags, as `join_kernels` reads them."""
    names = FileNames(graph)
    called = {node.name: " ".join((node.name, *map(tag, names.positions([node.name])))) for node in said.executed}
    executed = []
    for node in said.executed:
        positions = names.positions(node.originals or (node.name,)) or names.positions(node.outputs)
        executed.append(replace(node, name=called[node.name], originals=tuple(map(tag, positions)), outputs=()))
    kernels = [replace(each, name=called.get(each.name, each.name)) for each in said.kernels]
    return kernels, executed, {called.get(name, name): shape for name, shape in said.shapes.items()}


def _check_network(graph: OnnxGraph, said: ToolReport, strange: frozenset[str], names: str) -> None:
    working = [each for each in said.kernels if each.op not in LAYOUT_OPERATORS and each.name not in said.opaque]
    if not working and not said.opaque:
        raise InputError(f"{names}: has no layers at all")
    unknown = [each.name for each in working if each.name in strange]
    if len(unknown) > _MOST_STRANGE * len(working):
        raise InputError(
            f"{names}: of another network than {graph.label}: {len(unknown)} of its {len(working)} layers are none "
            f"of that file's, such as {unknown[0]!r}"
        )


def _check_shapes(graph: OnnxGraph, trace: Trace, shapes: Mapping[str, tuple[int, ...]], names: str) -> None:
    """Refuses a report of the same network at another input size: its times say nothing about this file."""
    compared, different = 0, []
    for name, shape in shapes.items():
        anchor = trace.anchors.get(name)
        if anchor is None or weight_position(graph.nodes[anchor].op_type) is None:
            continue
        expected = graph.shape(graph.nodes[anchor].output[0])
        if expected is None or None in expected:
            continue
        compared += 1
        if _sizes(shape) != _sizes(expected):
            different.append((graph.nodes[anchor].name or graph.nodes[anchor].output[0], shape, expected))
    if compared and len(different) > compared / 2:
        layer, shape, expected = different[0]
        raise InputError(
            f"{names}: of {graph.label} at another input size: {layer!r} writes {list(shape)}, "
            f"in the file it writes {list(expected)}; export the report at the file's own size"
        )


def _sizes(shape: Sequence[int | None]) -> list[int]:
    """Its dimensions whatever the layout, without those of one that tools add and drop."""
    return sorted(size for size in shape if size is not None and size != 1)


def _explain(title: str, case: LayerCase, precision: str) -> Reason:
    codes = " x ".join(each.codes.dtype if each.codes else "float" for each in case.operands if each.shape)
    ran = "other types" if precision == "other" else precision
    return Reason(causes=("ran_in_float",), found=f"{title} ran it in {ran}, though the file has {codes}")
