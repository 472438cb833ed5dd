"""From one artefact of a quantized network to another: Q/DQ files, encodings, calibration caches, `.tflite`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bitwright.quant.errors import InputError


def export_file(source: Path, path: Path, format: str, settings: Mapping[str, str]) -> tuple[Path, ...]:
    """Writes a quantized file in another format.

    Weights that the source holds as codes are written as the values of these codes, so that they round to the same
    ones; its layers in float keep theirs.

    Args:
        source: an ONNX file with Q/DQ, or in float with its encodings or calibration cache beside it.
        path: the file to write, with the exporter's suffix.
        format: the exporter.
        settings: the exporter's own.

    Returns:
        The files, that one first.

    Raises:
        InputError: the source is in float, the format cannot say it, or it would be written over itself.
    """
    from bitwright.quant.export.exporter import EXPORTERS, export_as
    from bitwright.quant.onnx_import import graph_from_onnx
    from bitwright.quant.onnx_import.to_captured import to_quantized

    EXPORTERS.check(format)
    if path.resolve() == source.resolve():
        raise InputError(f"{path}: is what is read; write to another file")
    quantized, _ = to_quantized(graph_from_onnx(source))
    return export_as(quantized, path, format, **settings)


def settings_of(texts: Sequence[str]) -> dict[str, str]:
    """The settings that `--set NAME=VALUE` gives.

    Raises:
        InputError: one is no such pair.
    """
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise InputError(f"--set {text!r} is no NAME=VALUE, such as version=0.6.1")
    return dict(text.split("=", 1) for text in texts)


@contextmanager
def with_codes(file: Path) -> Iterator[Path]:
    """A file whose codes runtimes can read: itself, or a Q/DQ twin of a float file that has its scales beside it."""
    from bitwright.quant.onnx_import import graph_from_onnx
    from bitwright.quant.onnx_import.beside import has_codes_beside

    if not has_codes_beside(file) or graph_from_onnx(file).has_own_codes:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        twin = Path(folder) / file.name
        yield export_file(file, twin, "onnx_qdq", {})[0]
