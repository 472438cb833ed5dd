"""Whose line a runtime's complaint is about: our ONNX files carry references of tensors as names of values.

A reference is `MODULE@CALL.OPERATOR.OUTPUT`, see `quant.graph.TensorRef`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import provenance_of


def with_lines(error: InputError, file: Path) -> InputError:
    """The error with the source lines of the layers that it names; the same one where none is known.

    Args:
        error: whose message has a runtime's words.
        file: what the runtime did not take.
    """
    lines = lines_named_in(str(error), [file])
    return InputError("; ".join((str(error), *lines))) if lines else error


def lines_named_in(message: str, files: Iterable[Path]) -> tuple[str, ...]:
    """`LAYER is net.py:7` for each layer of these files that a message names and whose source line is known.

    Of names that begin alike the longest is meant. A file without a provenance beside it has nothing to say.

    Args:
        message: of a runtime.
        files: artefacts.
    """
    sources: dict[str, str] = {}
    for file in files:
        sources |= _sources(provenance_of(file))
    if not sources:
        return ()
    names = "|".join(re.escape(name) for name in sorted(sources, key=len, reverse=True))
    found = re.findall(rf"(?<![\w.@])({names})(?![\w.@]*\w)", message)
    return tuple(f"{name.partition('@')[0]} is {sources[name]}" for name in dict.fromkeys(found))


def _sources(provenance: Path) -> dict[str, str]:
    try:
        found = json.loads(provenance.read_text(encoding="utf-8"))["sources"]
    except (OSError, ValueError, KeyError, TypeError):  # the runtime's own message is what counts here
        return {}
    return {str(name): str(line) for name, line in found.items()} if isinstance(found, dict) else {}
