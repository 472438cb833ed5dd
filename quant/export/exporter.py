"""What an exporter is: a file in this folder that writes the artefact of one kind of toolchain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from bitwright.quant.errors import InputError, unknown
from bitwright.quant.extension_point import ExtensionPoint

if TYPE_CHECKING:
    from bitwright.quant.graph import Graph, TensorRef
    from bitwright.quant.quantized_model import QuantizedModel

EXPORTERS = ExtensionPoint(
    kind="exporter", package="bitwright.quant.export", marker="EXPORTER", group="bitwright.exporters"
)


def provenance_file(artefact: Path) -> Path:
    """`NAME.provenance.json` of an ONNX file, else `NAME.tflite.provenance.json`: both may lie in one folder."""
    if artefact.suffix == ".onnx":
        return artefact.with_suffix(".provenance.json")
    return artefact.with_name(f"{artefact.name}.provenance.json")


def provenance_of(artefact: Path) -> Path:
    """Where an artefact's provenance lies: `provenance_file`, or as it was called when all kinds shared one name."""
    file, shared = provenance_file(artefact), artefact.with_suffix(".provenance.json")
    is_old = not file.is_file() and shared.is_file() and not artefact.with_suffix(".onnx").is_file()
    return shared if is_old else file


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """Writes a quantized network for the toolchains whose targets name it as their `artifact.format`.

    `quant.onnx_import.graph_from_onnx` reads what it wrote as `.onnx`: the same plan with the same qparams. Of other
    files each tensor of the plan stands there with its qparams.

    Attributes:
        title: what is written, in a few words.
        write: takes the network, the path of the file and the settings; returns the files, that one first.
        suffix: of the file.
        settings: what else `write` takes, all of them texts, with what each means.
    """

    title: str
    write: Callable[..., tuple[Path, ...]]
    suffix: str = ".onnx"
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def export_as(quantized: QuantizedModel, path: str | Path, format: str, **settings: str) -> tuple[Path, ...]:
    """Writes a quantized network in a target's `artifact.format`.

    Args:
        quantized: the network with its plan and qparams.
        path: the file, with the exporter's suffix; the others get its name and suffixes of their own.
        format: the exporter's name, such as `onnx_qdq`, `encodings_json` or `tensorrt_implicit`.
        settings: the exporter's own.

    Returns:
        The files, that one first.

    Raises:
        InputError: no such exporter or setting, or something of the network that the format cannot say.
    """
    exporter: Exporter = EXPORTERS.load(format)
    for name in settings:
        if name not in exporter.settings:
            raise unknown(f"setting of exporter {format!r}", name, exporter.settings)
    path = Path(path)
    if path.suffix != exporter.suffix:
        raise InputError(f"path = {str(path)!r}; {exporter.title} is written as NAME{exporter.suffix}")
    return exporter.write(quantized, path, **settings)


def described(graph: Graph, ref: TensorRef) -> str:
    """A tensor with the layer that it belongs to, for messages: `weight conv.weight of conv2d 'conv' (model.py:12)`."""
    constant = graph.is_constant(ref)
    node = next(iter(graph.consumers[ref]), None) if constant or ref not in graph.producers else graph.producers[ref]
    what = "weight" if constant else "activation" if ref in graph.producers else "input"
    if node is None:
        return f"{what} {ref}"
    line = f" ({node.source})" if node.source else ""
    return f"{what} {ref} of {node.op} {node.module_path or node.name!r}{line}"
