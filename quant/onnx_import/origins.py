"""Where an ONNX node comes from: which operator of the exported network, which module, which line.

Our own files say it in their values' names and in `NAME.provenance.json`, torch.onnx's in their nodes' metadata; of
others the nodes' names give the module at best.
"""

from __future__ import annotations

import ast
import json
import linecache
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx
from onnx import NodeProto

from bitwright.quant.graph import SourceLine, TensorRef

_LARGEST_PROVENANCE = 1 << 28
_TORCH = "pkg.torch.onnx."
_FRAME = re.compile(r'File "([^"\n]+)", line (\d{1,7}), in [^\n]*\n\s*([^\n]*)')
# Frames of libraries that only pass the call on.
_LIBRARY = re.compile(r"[/\\]torch[/\\](?:nn|_|fx|export|utils|ao)|^<")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known about where a node comes from; empty where nothing is.

    Attributes:
        group: the same for all nodes that were one operator.
        op: that operator, by ATen's base name.
        name: the name of its node in the graph that was exported.
        module_path: the module whose forward called it.
        module_type: that module's class.
        source: the user's own line.
    """

    group: str = ""
    op: str = ""
    name: str = ""
    module_path: str = ""
    module_type: str = ""
    source: SourceLine | None = None


class Origins(Protocol):
    """How a producer's files say it."""

    def of(self, node: NodeProto) -> Origin:
        """The origin of a node."""

    def ref(self, value: str) -> TensorRef | None:
        """The reference that a value's name stands for; None when it stands for none."""


def origins_of(model: onnx.ModelProto, path: Path) -> Origins:
    """How this file says it."""
    if model.producer_name == "bitwright":
        return OwnOrigins(read_provenance(path))
    return ForeignOrigins()


def read_provenance(path: Path) -> Mapping[str, Any]:
    """What stands beside one of our own files; empty when it is lost or no such thing."""
    file = path.with_suffix(".provenance.json")
    try:
        if file.stat().st_size > _LARGEST_PROVENANCE:
            return {}
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    known = isinstance(content, dict) and str(content.get("format", "")).startswith("bitwright-provenance/")
    return content if known else {}


class OwnOrigins:
    """Values are named by their references; those that only exist in ONNX have a suffix behind `/`."""

    def __init__(self, provenance: Mapping[str, Any]) -> None:
        self._values = _strings(provenance.get("values"))
        self._sources = _strings(provenance.get("sources"))
        operators = provenance.get("operators")
        self._operators = {
            name: _strings(facts)
            for name, facts in (operators.items() if isinstance(operators, dict) else ())
            if isinstance(name, str)
        }

    def of(self, node: NodeProto) -> Origin:
        """All nodes whose results' names differ behind the `/`, or in the number of the result, are one operator."""
        name = base_name(node.output[0]) if node.output else ""
        ref = self.ref(name)
        if ref is None or not ref.is_op_result:
            return Origin()
        first = TensorRef(ref.region, ref.module_path, ref.call_index, ref.op_ordinal)
        facts = self._operators.get(str(first), {})
        return Origin(
            group=str(first),
            op=facts.get("op", ""),
            name=facts.get("name", ""),
            module_path=ref.module_path,
            module_type=facts.get("module_type", ""),
            source=_source(self._sources.get(str(first), "")),
        )

    def ref(self, value: str) -> TensorRef | None:
        """By the provenance, else by the name itself."""
        try:
            return TensorRef.parse(self._values.get(value, value))
        except ValueError:
            return None


def base_name(value: str) -> str:
    """The tensor of the network to which a value of our own file belongs."""
    return value.partition("#")[0].partition("/")[0]


class ForeignOrigins:
    """torch.onnx notes on each node the call it was made from; of other producers the node's name has to do."""

    def of(self, node: NodeProto) -> Origin:
        """By the metadata, else by a name such as `/layer1/layer1.0/conv1/Conv`."""
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = _names(notes.get(f"{_TORCH}name_scopes", ""))
        if not scopes:
            return Origin(module_path=_path_in(node.name))
        classes = _names(notes.get(f"{_TORCH}class_hierarchy", ""))
        called = classes[-1] if classes and classes[-1].startswith("aten.") else ""
        return Origin(
            group="/".join(scopes),
            op=_base_name(called),
            name=scopes[-1],
            module_path=scopes[-2] if len(scopes) > 1 else "",
            module_type=classes[-2].rpartition(".")[2] if len(classes) > 1 else "",
            source=_innermost(notes.get(f"{_TORCH}stack_trace", "")),
        )

    def ref(self, value: str) -> TensorRef | None:
        """Names of foreign values are no references."""
        return None


# torch.onnx's own spellings of operators that the user called by another name.
_SPELT_OTHERWISE = {"_native_batch_norm_legit_no_training": "batch_norm", "_softmax": "softmax", "_to_copy": "to",
                    "convolution": "", "view": "reshape", "_unsafe_view": "reshape"}  # fmt: skip


def _base_name(called: str) -> str:
    name = called.split(".")[1].rstrip("_") if called.count(".") else ""
    return _SPELT_OTHERWISE.get(name, name)


def _names(text: str) -> list[str]:
    """A list of strings as Python writes it; empty when it is none."""
    try:
        value = ast.literal_eval(text) if 0 < len(text) < 20_000 else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(item) for item in value] if isinstance(value, list) else []


def _path_in(name: str) -> str:
    return ".".join(part for part in name.split("/")[:-1] if part)


def _innermost(trace: str) -> SourceLine | None:
    frames = [(file, line, text) for file, line, text in _FRAME.findall(trace) if not _LIBRARY.search(file)]
    return SourceLine(frames[-1][0], int(frames[-1][1]), frames[-1][2].strip()) if frames else None


def _source(text: str) -> SourceLine | None:
    """`file:line`, and the line itself where the file is still there."""
    file, _, line = text.rpartition(":")
    if not file or not line.isascii() or not line.isdigit() or len(line) > 7:
        return None
    is_source = file.endswith(".py") and Path(file).is_file()
    return SourceLine(file, int(line), linecache.getline(file, int(line)).strip() if is_source else "")


def _strings(content: Any) -> dict[str, str]:
    items = content.items() if isinstance(content, dict) else ()
    return {key: value for key, value in items if isinstance(key, str) and isinstance(value, str)}
