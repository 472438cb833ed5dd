"""Runs models for a process with another Python; a script, not a module: `python parity_worker.py RUNTIME.py`.

Needs NumPy alone, and Python 3.8 or newer. `RUNTIME.py`, a `parity_worker_*.py`, brings the runtime: `VERSION`,
`open_model(settings, arrays)`, which returns a session and what is to be told of it, and `run_model(session, question,
arrays)`, which returns arrays.

A question on standard input and an answer on standard output are each a length of eight bytes, JSON, another length and
an `.npz` archive. Questions: `{"session": key, "open": settings}`, which replaces the session of that key, and
`{"session": key, "run": question}`.
"""

import io
import json
import os
import runpy
import struct
import sys
from typing import Any, BinaryIO, Dict, Mapping, Optional, Tuple  # noqa: UP035 - of Python 3.8, too

# A script's own folder comes first: none of its neighbours may stand in for a package.
sys.path.pop(0)

import numpy as np


def read(stream: BinaryIO) -> Optional[Tuple[Dict[str, Any], Dict[str, Any]]]:  # noqa: UP006, UP045
    """The next question; None at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    question = json.loads(stream.read(struct.unpack("<Q", head)[0]).decode("utf-8"))
    (length,) = struct.unpack("<Q", stream.read(8))
    with np.load(io.BytesIO(stream.read(length)), allow_pickle=False) as archive:
        return question, {name: archive[name] for name in archive.files}


def write(stream: BinaryIO, answer: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """One answer."""
    text, packed = json.dumps(answer).encode("utf-8"), io.BytesIO()
    np.savez(packed, **arrays)
    for part in (text, packed.getvalue()):
        stream.write(struct.pack("<Q", len(part)) + part)
    stream.flush()


def main(runtime: str) -> None:
    """Answers until there are no more questions."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the runtime prints must not stand between answers
    found = runpy.run_path(runtime)
    write(answers, {"version": found["VERSION"]}, {})
    sessions: Dict[str, Any] = {}  # noqa: UP006
    while True:
        asked = read(sys.stdin.buffer)
        if asked is None:
            return
        question, arrays = asked
        try:
            if "open" in question:
                sessions.pop(question["session"], None)  # its weights need not be held beside the new ones
                sessions[question["session"]], told = found["open_model"](question["open"], arrays)
                write(answers, told, {})
            else:
                write(answers, {}, found["run_model"](sessions[question["session"]], question["run"], arrays))
        except Exception as error:
            write(answers, {"error": type(error).__name__ + ": " + " ".join(str(error).split())[:400]}, {})


if __name__ == "__main__":
    main(sys.argv[1])
