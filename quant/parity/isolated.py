"""A link in a process of its own: a runtime that crashes takes that process with it, not the comparison."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any

from bitwright.quant.errors import InputError
from bitwright.quant.parity.link import Array, Link, LinkCrash, LinkError, LinkTensor, Recording
from bitwright.quant.parity.results import Inputs


class IsolatedLink:
    """The link that `make` returns, in a process that is started when it is first asked for something."""

    replaced: Mapping[str, str] = {}

    def __init__(self, name: str, make: Callable[[], Link], *, takes_tensors: bool = True) -> None:
        """Prepares a link.

        Args:
            name: of the link.
            make: called in the process; can be pickled (`functools.partial` of a class and its arguments).
            takes_tensors: whether that link does.
        """
        self.name, self._make, self.takes_tensors = name, make, takes_tensors
        self._process: Any = None
        self._pipe: Connection | None = None

    @cached_property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """As the link says."""
        found: Mapping[str, LinkTensor] = self._ask("loading it", None)
        return found

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """Runs once; see `Link.run`.

        Raises:
            LinkError: the link cannot run.
            LinkCrash: the process has ended; with its signal.
        """
        recording: Recording = self._ask("running it", (inputs, tuple(wanted), given, nudge))
        return recording

    def close(self) -> None:
        """Ends the process."""
        if self._pipe is not None:
            self._pipe.close()
            self._process.join()
            self._process = self._pipe = None

    def _ask(self, what: str, question: Any) -> Any:
        pipe = self._connection()
        try:
            # Not the pipe's own pickling: it would pass tensors on as shared memory, which ends with the process.
            pipe.send_bytes(pickle.dumps(question))
            answer = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            raise LinkCrash(f"{self.name}: {what} ended its process with {self._end()}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _connection(self) -> Connection:
        if self._pipe is None:
            context = _context()
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._make), daemon=True)
            self._process.start()
            theirs.close()
        return self._pipe

    def _end(self) -> str:
        process = self._process
        process.join()
        self._process = self._pipe = None  # the next question starts a new one
        code = process.exitcode
        return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _context() -> Any:
    """Where processes are copies of one that has imported torch; elsewhere each imports it, which takes seconds.

    No runtime is imported before the copy: the state of one may not survive it.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _serve(pipe: Connection, make: Callable[[], Link]) -> None:
    link: Link | None = None
    while True:
        try:
            question = pickle.loads(pipe.recv_bytes())
        except (EOFError, KeyboardInterrupt):
            return
        try:
            link = link or make()
            if question is None:
                answer: Any = dict(link.tensors)
            else:
                inputs, wanted, given, nudge = question
                answer = link.run(inputs, wanted=wanted, given=given, nudge=nudge)
        except InputError as error:
            answer = LinkError(str(error))
        except Exception as error:  # of a runtime: any
            answer = LinkError(f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
        pipe.send_bytes(pickle.dumps(answer))
