"""What kind of file an artefact is, by its content and else by its name, and which runtimes read it.

Several runtimes abort the process, or talk of internals, when they are handed another runtime's file; so the kind is
looked at before the runtime is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.backends.base import BACKENDS, Backend, artifact_label
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ArtifactKind:
    """A file format.

    Attributes:
        name: what `Backend.reads` calls it.
        title: what messages call it, with its article.
        suffixes: of its files.
        identifier: how a FlatBuffer of it is marked (`file_identifier` of its schema, behind the root's offset); empty
            for other formats, which only their names tell.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    identifier: bytes = b""

    def has_mark(self, head: bytes) -> bool:
        """Whether a file that begins so is one of these, beyond doubt."""
        return bool(self.identifier) and head[_ROOT_OFFSET_BYTES:].startswith(self.identifier)


_ROOT_OFFSET_BYTES = 4
_HEAD_BYTES = 8
KINDS = (
    ArtifactKind(name="onnx", title="an ONNX model", suffixes=(".onnx",)),
    ArtifactKind(name="tflite", title="a LiteRT model", suffixes=(".tflite",), identifier=b"TFL3"),  # schema.fbs
    ArtifactKind(name="pte", title="an ExecuTorch program", suffixes=(".pte",), identifier=b"ET1"),  # program.fbs: ET12
    ArtifactKind(name="ort", title="a model in ONNX Runtime's own format", suffixes=(".ort",), identifier=b"ORTM"),
    ArtifactKind(name="pt2", title="a torch.export archive", suffixes=(".pt2",)),
    ArtifactKind(name="openvino", title="an OpenVINO model", suffixes=(".xml",)),
    ArtifactKind(name="plan", title="a TensorRT engine", suffixes=(".plan", ".engine")),
)


def artifact_kind(artifact: Any) -> ArtifactKind | None:
    """The kind of a path or of bytes; None when neither content nor name tells.

    Raises:
        InputError: it is a path where no file is.
    """
    label = artifact_label(artifact)
    if isinstance(artifact, bytes | bytearray):
        head, suffix = bytes(artifact[:_HEAD_BYTES]), ""
    else:
        with Path(artifact).open("rb") as file:
            head, suffix = file.read(_HEAD_BYTES), Path(label).suffix.lower()
    by_content = (kind for kind in KINDS if kind.has_mark(head))
    by_name = (kind for kind in KINDS if suffix in kind.suffixes)
    return next(by_content, None) or next(by_name, None)


def check_kind(artifact: Any, backend: Backend) -> None:
    """Refuses a file of a kind that the runtime does not read; what is of no known kind is left to the runtime.

    Raises:
        InputError: it is one, or no file is there; the message says which runtimes read which kinds.
    """
    kind = artifact_kind(artifact)
    if kind is not None and kind.name not in backend.reads:
        raise InputError(
            f"{artifact_label(artifact)}: is {kind.title}; {backend.name} reads {_titles(backend.reads)}; "
            f"{kind.title} is read by {', '.join(readers(kind.name)) or 'no runtime here'}"
        )


def readers(kind: str) -> tuple[str, ...]:
    """Names of the runtimes that read a kind of file, whether they are installed or not."""
    return tuple(name for name in BACKENDS.names() if kind in BACKENDS.load(name).reads)


def _titles(names: tuple[str, ...]) -> str:
    titles = [kind.title for kind in KINDS if kind.name in names]
    return " or ".join(titles) or "no files"
