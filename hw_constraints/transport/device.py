"""A device as the driver sees it: files can be put there, the runner can be asked."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from bitwright.hw_constraints.transport.address import DeviceAddress, parse_address
from bitwright.hw_constraints.transport.base import Answer, Transport, open_transport
from bitwright.hw_constraints.transport.bundle import bundle, receiver
from bitwright.hw_constraints.transport.content import Content
from bitwright.hw_constraints.transport.failures import (
    DeviceError,
    LacksSoftware,
    Rubbish,
    Vanished,
    WrongHash,
    refusal_of,
)
from bitwright.hw_constraints.transport.job import Job

_MARK = b"bitwright-device "  # as in runner/receive.py and runner/main.py
_PIECE_BYTES = 4 << 20  # of a file in one command: what a cut costs at most, and what is held in memory
_TIMEOUT_S = 60.0  # for an answer that needs no measurement; at 1 Mbit/s a piece takes 34 s
_NOT_FROM_HERE = "import sys; sys.path.remove(''); "  # no module of the folder where the login shell happens to be
_CANNOT_RUN = (126, 127)  # shells: found but not executable, not found
_SIGNALLED = 128  # shells: 128 + the signal


class Device:
    """One account on one device."""

    def __init__(self, address: DeviceAddress | str, transport: Transport | None = None) -> None:
        self.address = parse_address(address) if isinstance(address, str) else address
        self._transport = transport or open_transport(self.address)
        self._runner = Content(label="the runner", source=bundle(), suffix=".pyz")
        self.label = str(self.address)
        self.was_reached = False  # whether it ever answered
        self.replaced: list[str] = []  # files that were found not to be what their hash says
        self._there: set[str] = set()  # names that were seen whole since something last went wrong

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def hello(self) -> dict[str, Any]:
        """What is there: Python, processor, runtimes, free bytes, who holds the device.

        Raises:
            DeviceError: it cannot be asked.
        """
        self.put([])
        return self._run("hello", {"lock": self.address.lock}, timeout_s=_TIMEOUT_S)

    def put(self, contents: Sequence[Content], on_bytes: Callable[[int], None] = lambda _: None) -> None:
        """Copies the runner and what else is not there yet; goes on where a copy was cut.

        Args:
            contents: what to copy.
            on_bytes: hears of the bytes that arrived.

        Raises:
            DeviceError: it cannot be copied; bytes that arrived stay there for the next try.
        """
        wanted = {each.name: each for each in (self._runner, *contents) if each.name not in self._there}
        if not wanted:
            return
        files = {name: each.sha256 for name, each in wanted.items()}
        found = self._receive({"action": "look", "files": files}, b"")
        self.replaced += [wanted[name].label for name in found["removed"]]
        for name, each in wanted.items():
            if name not in found["whole"]:
                self._copy(each, int(found["partial"].get(name, 0)), on_bytes)
            self._there.add(name)

    def ask(self, job: Job, *, wait_s: float, starts: int) -> dict[str, Any]:
        """The result of a job, whose files have to be there; it is started when there is none.

        Args:
            job: the job.
            wait_s: seconds that the device waits before it answers `running`.
            starts: how often it may be started, all in all, until it counts as one that ends without a result.

        Raises:
            DeviceError: it cannot be asked, or refuses.
        """
        request = {"job": job.to_request(self.address.lock), "wait_s": wait_s, "starts": starts}
        return self._run("job", request, timeout_s=_TIMEOUT_S + wait_s)

    def _copy(self, content: Content, offset: int, on_bytes: Callable[[int], None]) -> None:
        size = content.size
        offset = offset if offset < size else 0
        while True:
            piece = content.piece(offset, _PIECE_BYTES)
            request = {
                "action": "store",
                "name": content.name,
                "sha256": content.sha256,
                "size": size,
                "offset": offset,
            }
            try:
                answer = self._receive(request, piece)
            except WrongHash as error:
                raise WrongHash(
                    f"{error}, not {content.sha256}: {content.label} changed while it was copied, or on its way"
                ) from error
            if answer["state"] == "stored":
                on_bytes(len(piece))
                return
            on_bytes(int(answer["bytes"]) - offset)
            if answer["bytes"] <= offset:
                raise Vanished(f"{self.label}: {content.label}: the copy does not go on at byte {offset}")
            offset = int(answer["bytes"])

    def _receive(self, request: dict[str, Any], piece: bytes) -> dict[str, Any]:
        source = receiver()
        program = f"{_NOT_FROM_HERE}exec(sys.stdin.buffer.read({len(source)}).decode())"
        return self._exchange(["-c", program], request, source, piece, _TIMEOUT_S)

    def _run(self, verb: str, request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        runner = f"{self.address.folder}/store/{self._runner.name}"
        # The shell there would expand ~ only unquoted, so Python does.
        program = f"{_NOT_FROM_HERE}import os, runpy; sys.argv = [os.path.expanduser(sys.argv[1]), *sys.argv[2:]]; "
        program += "runpy.run_path(sys.argv[0], run_name='__main__')"
        return self._exchange(["-c", program, runner, verb], request, b"", b"", timeout_s)

    def _exchange(
        self, arguments: Sequence[str], request: dict[str, Any], before: bytes, behind: bytes, timeout_s: float
    ) -> dict[str, Any]:
        line = json.dumps({"folder": self.address.folder, **request}).encode() + b"\n"
        command = [self.address.python, *arguments]
        try:
            record = self._read(self._transport.execute(command, before + line + behind, timeout_s=timeout_s))
            if record["state"] == "refused":
                raise refusal_of(self.label, str(record["kind"]), str(record["message"]))
        except DeviceError:
            self._there.clear()
            raise
        self.was_reached = True
        return record

    def _read(self, answer: Answer) -> dict[str, Any]:
        """The record in an answer.

        Raises:
            DeviceError: there is none.
        """
        marked = [line for line in answer.output.splitlines() if line.startswith(_MARK)]
        with suppress(ValueError, IndexError):
            record = json.loads(marked[-1][len(_MARK) :])
            if isinstance(record, dict) and "state" in record:
                return record
        said = (answer.errors.strip().splitlines() or ["nothing"])[-1]
        if answer.code in _CANNOT_RUN:
            raise LacksSoftware(
                f"{self.label}: {self.address.python} does not run there ({said}); install Python 3.8 or later, "
                "or name one with ?python=PATH"
            )
        if answer.code < 0 or answer.code > _SIGNALLED:
            number = abs(answer.code) % _SIGNALLED
            raise Vanished(f"{self.label}: the process there was ended by {_signal(number)}")
        if self._runner.name in said:
            raise WrongHash(f"{self.label}: the runner is no longer there: {said}")
        shown = answer.output.decode("utf-8", "replace").strip()[:80]
        raise Rubbish(
            f"{self.label}: answers {shown!r} and ends with {answer.code}, which is no answer of the runner "
            f"(on standard error: {said}); see what {self.address.python} does there, and what the login shell prints"
        )


def _signal(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
