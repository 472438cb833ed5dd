"""Real English text that every machine with Python has: the docstrings of its standard library, as token ids.

Each text is the first `TOKENS` word pieces of a docstring that has at least as many, start and end marks included, so
that no network needs a mask. Texts are taken in the order of a hash of what they say: neighbours come from unlike
modules.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TOKENS = 64
CALIBRATE = 200
SEEN = 300  # that methods were chosen on; they belong to neither
SCORED = 300
_LEFT_OUT = ("site-packages", "test", "tests", "idlelib", "lib2to3")


def token_ids(tokenizer_file: Path, library: Path) -> npt.NDArray[np.int64]:
    """The texts, [CALIBRATE + SEEN + SCORED, TOKENS].

    Args:
        tokenizer_file: of the network, as the package `tokenizers` reads it.
        library: the folder with that package.
    """
    if str(library) not in sys.path:
        sys.path.append(str(library))
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS)
    rows = []
    for text in sorted(docstrings(), key=lambda text: hashlib.sha256(text.encode()).digest()):
        ids = tokenizer.encode(text).ids
        if len(ids) == TOKENS:
            rows.append(ids)
        if len(rows) == CALIBRATE + SEEN + SCORED:
            break
    return np.array(rows, np.int64)


def docstrings() -> Iterator[str]:
    """Of every module, class and function of the standard library, each once, white space joined."""
    seen = set()
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(root.rglob("*.py")):
        if set(file.relative_to(root).parts) & {*_LEFT_OUT}:
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # its own examples of broken files
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                if text not in seen:
                    seen.add(text)
                    yield text
