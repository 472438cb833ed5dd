"""An artefact is one file or several: ONNX weights and OpenVINO's lie beside it, and our own have a provenance."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bitwright.hw_constraints.backends.artifacts import artifact_kind
from bitwright.quant.errors import InputError

_PARTS = {".onnx": (".provenance.json",), ".xml": (".bin",)}  # what lies beside a file by its name


def digest(file: Path) -> str:
    """Of all that an artefact consists of.

    Raises:
        InputError: as `weights_beside`.
    """
    found = hashlib.sha256()
    for part in (file, *(part for _, part in _parts(file)), *weights_beside(file).values()):
        with part.open("rb") as stream:
            while piece := stream.read(1 << 20):
                found.update(piece)
    return found.hexdigest()[:16]


def weights_beside(file: Path) -> dict[str, Path]:
    """Files with weights of an ONNX model, by what the model calls them (ONNX: "external data").

    Raises:
        InputError: the model is not readable, or such a file is not there, a link, or outside the model's folder.
    """
    import onnx

    from bitwright.quant.onnx_import.reading import tensors_of
    from bitwright.quant.onnx_import.stored_tensor import file_inside

    kind = artifact_kind(file)
    if kind is None or kind.name != "onnx":
        return {}
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError; its package comes with onnx alone
        raise InputError(f"{file}: not an ONNX model, or a truncated one; export it again ({error})") from error
    return {
        entry.value: file_inside(entry.value, f"{file}: {place}", file.parent)
        for place, tensor in tensors_of(model.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }


def deliver(source: Path, file: Path) -> Path:
    """Copies an artefact, all its parts named after the copy; what an earlier one of that name left there goes.

    Args:
        source: the artefact.
        file: where the copy goes; its suffix becomes that of the artefact.
    """
    file, weights = file.with_suffix(source.suffix), weights_beside(source)
    for left in file.parent.glob(f"{file.stem}.*"):
        left.unlink()
    for suffix, part in _parts(source):
        shutil.copyfile(part, file.with_suffix(suffix))
    if weights:
        _copy_with_weights(source, file, weights)
    else:
        shutil.copyfile(source, file)
    return file


def _copy_with_weights(source: Path, file: Path, weights: dict[str, Path]) -> None:
    """The model names its weights by their new names: other files in the folder may have the old ones."""
    import onnx

    from bitwright.quant.onnx_import.reading import tensors_of

    names = {place: f"{file.name}{f'.{number}' if number else ''}.data" for number, place in enumerate(weights)}
    for place, name in names.items():
        shutil.copyfile(weights[place], file.with_name(name))
    model = onnx.load(str(source), load_external_data=False)
    for _, tensor in tensors_of(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = names[entry.value]
    file.write_bytes(model.SerializeToString())


def _parts(file: Path) -> Iterator[tuple[str, Path]]:
    """What lies beside a file by its name, with its suffix."""
    for suffix in _PARTS.get(file.suffix, ()):
        if (part := file.with_suffix(suffix)).is_file():
            yield suffix, part
