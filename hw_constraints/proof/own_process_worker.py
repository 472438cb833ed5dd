"""The process behind `own_process`: `python -m … RUNTIME DESCRIPTOR`, which answers questions until there are none."""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from bitwright.hw_constraints.backends import Session, get_backend
from bitwright.hw_constraints.proof.own_process import Failed, Loaded
from bitwright.quant.errors import InputError


def serve(runtime: str, pipe: Connection) -> None:
    """Answers `(sessions to forget, session, method, arguments)` with what the method returns, or a `Failed`."""
    sessions: dict[int, Session] = {}
    while True:
        try:
            dropped, key, method, arguments = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        for each in dropped:
            sessions.pop(each, None)
        try:
            if method == "load":
                answer: Any = _load(runtime, sessions, key, *arguments)
            else:
                answer = getattr(sessions[key], method)(*arguments)
        except InputError as error:
            answer = Failed(message=str(error), is_refusal=True)
        except Exception:
            answer = Failed(message=traceback.format_exc(), is_refusal=False)
        pipe.send(answer)


def _load(
    runtime: str, sessions: dict[int, Session], key: int, artifact: Any, threads: int, folder: str | None
) -> Loaded:
    if folder is not None:
        os.chdir(folder)
    session = sessions[key] = get_backend(runtime).load(artifact, threads=threads)
    return Loaded(settings=dict(session.settings), input_infos=session.input_infos, output_infos=session.output_infos)


if __name__ == "__main__":
    os.dup2(2, 1)  # what a runtime prints is no answer of the command
    serve(sys.argv[1], Connection(int(sys.argv[2])))
    os._exit(0)  # no destructors: nobody waits for them
