"""Runs ONNX models for a process with another Python; a script, not a module: `python parity_version_worker.py`.

Needs NumPy and ONNX Runtime alone, and Python 3.8 or newer. A question on standard input and an answer on standard
output are each a length of eight bytes, JSON, another length and an `.npz` archive. Questions: `{"open": {...}}` with
the model as the array `model`, `{"run": [names]}` with the feeds.
"""

import io
import json
import os
import struct
import sys
from typing import Any, BinaryIO, Dict, Mapping, Optional, Tuple  # noqa: UP035 - of Python 3.8, too

# A script's own folder comes first: none of its neighbours may stand in for a package.
sys.path.pop(0)

import numpy as np
import onnxruntime


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


def open_model(settings: Mapping[str, Any], model: Any) -> Any:
    """A session, as `OnnxRuntimeLink` has it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, settings["level"])
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    for key, value in settings["entries"].items():
        options.add_session_config_entry(key, value)
    if settings["optimized"]:
        options.optimized_model_filepath = settings["optimized"]
    return onnxruntime.InferenceSession(
        model.tobytes(), options, providers=["CPUExecutionProvider"], disabled_optimizers=settings["without"]
    )


def main() -> None:
    """Answers until there are no more questions."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the runtime prints must not stand between answers
    write(answers, {"version": onnxruntime.__version__}, {})
    session: Any = None
    while True:
        asked = read(sys.stdin.buffer)
        if asked is None:
            return
        question, arrays = asked
        try:
            if "open" in question:
                opened = open_model(question["open"], arrays["model"])
                session = session if question["open"]["optimized"] else opened
                write(answers, {}, {})
            else:
                results = session.run(question["run"], arrays)
                write(answers, {}, {str(place): each for place, each in enumerate(results)})
        except Exception as error:
            write(answers, {"error": type(error).__name__ + ": " + " ".join(str(error).split())[:400]}, {})


main()
