"""Is a network the same whether it is captured, or read from our ONNX file, or from torch.onnx's?

Operators with their shapes and types, multiply-accumulates and the bytes of weights, over torchvision's architectures
with seeded random weights. From our own file everything has to come back; torch.onnx's optimizer merges and drops
operators that only move values, so there what computes is compared, and what differs is listed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitwright.experiments.benchmarks.architectures import ARCHITECTURES, Architecture, build
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.peers.asking import ask
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.graph import Graph
from bitwright.quant.graph_difference import GraphDifference, graph_difference
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm

ROW = "onnx_graph"
NETWORKS = (
    *("convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "maxvit_t", "mnasnet0_5", "mobilenet_v2"),
    *("mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50"),
    *("shufflenet_v2_x1_0", "squeezenet1_1", "swin_t", "swin_v2_t", "vit_b_32", "lraspp_mobilenet_v3_large"),
    *("deeplabv3_mobilenet_v3_large", "r3d_18"),
)
OPSET = 20
_LISTED = 3  # differences that a line of the table names


def run(bench: Bench) -> list[Record]:
    """Captures, writes and reads every architecture."""
    install_library(bench.home)
    known = {architecture.name: architecture for architecture in ARCHITECTURES}
    bench.ours.mkdir(parents=True, exist_ok=True)
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    for name in NETWORKS:
        network, arguments = build(known[name], bench.home / LIBRARY)
        graph = fold_batch_norm(capture(network, arguments)).graph
        file = export_float(graph, bench.ours / f"{name}-float.onnx", opset=OPSET)
        ours.append(_line(name, graph, file, moves=True))
        file.unlink()
        answer = ask("torch_onnx", name, _request(known[name], arguments, bench), home=bench.home, cache=bench.peers)
        versions = answer["versions"]
        theirs.append(_line(name, graph, Path(answer["file"]), moves=False))
    return [
        _record("our_file", ours, {}, Reach("=", float(len(NETWORKS)))),
        _record("torch_onnx_file", theirs, versions, None),
        record(
            f"{ROW}.torch_onnx_macs",
            area="quant",
            value=float(sum(line["equal_macs"] and line["equal_weights"] for line in theirs)),
            unit="architectures with the same MACs and weights",
            n=len(theirs),
            reach=Reach("=", float(len(NETWORKS))),
            peers=versions,
        ),
    ]


def _request(architecture: Architecture, arguments: tuple[Any, ...], bench: Bench) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if architecture.name == "googlenet":
        settings = {"init_weights": False}
    elif architecture.task == "segmentation":
        settings = {"weights_backbone": None}
    return {
        "library": str(bench.home / LIBRARY),
        "name": architecture.name,
        "settings": settings,
        "shape": list(arguments[0].shape),
        "opset": OPSET,
    }


def _line(name: str, graph: Graph, file: Path, *, moves: bool) -> dict[str, Any]:
    start = time.perf_counter()
    imported = graph_from_onnx(file)
    read_s = time.perf_counter() - start
    difference = graph_difference(graph, imported.graph, moves=moves)
    return {
        "network": name,
        "operators": len(graph.nodes),
        "in the file": len(imported.graph.nodes),
        "GMACs": f"{difference.macs[0] / 1e9:.3f}",
        "equal_macs": difference.macs[0] == difference.macs[1],
        "equal_weights": difference.weight_bytes[0] == difference.weight_bytes[1],
        "kept as ONNX has them": len(imported.kept),
        "same": difference.is_empty,
        "differences": _spell(difference),
        "read s": f"{read_s:.2f}",
    }


def _spell(difference: GraphDifference) -> str:
    parts = []
    for what, found in (("only captured", difference.only_first), ("only in the file", difference.only_second)):
        if found:
            named = [f"{count} × {operator}" for operator, count in list(found.items())[:_LISTED]]
            rest = f" and {len(found) - _LISTED} more kinds" if len(found) > _LISTED else ""
            parts.append(f"{what}: {'; '.join(named)}{rest}")
    return ". ".join(parts)


def _record(figure: str, lines: Sequence[dict[str, Any]], versions: dict[str, str], reach: Reach | None) -> Record:
    return record(
        f"{ROW}.{figure}",
        area="quant",
        value=float(sum(line["same"] for line in lines)),
        unit="architectures without a difference",
        n=len(lines),
        reach=reach,
        peers=versions,
        table=lines,
    )
