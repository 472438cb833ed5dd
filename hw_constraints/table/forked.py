"""Runs something in a fork of this process: what kills or stops a fork costs nothing but the fork."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

Say = Callable[[dict[str, Any]], None]
Act = Callable[[Say], None]
_CHILD = "child"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a fork left behind.

    Attributes:
        messages: all that it said.
        end: None when it came to an end by itself and well, else how it ended.
    """

    messages: tuple[dict[str, Any], ...]
    end: str | None


def in_fork(act: Act, *, seconds: float) -> Told:
    """Acts in a fork of this process.

    Args:
        act: what to do; it is given a function that passes a message to this process.
        seconds: after which the fork, and what it has forked itself, is killed.
    """
    reading, writing = os.pipe()
    pids = [os.fork()]
    if not pids[0]:
        os.close(reading)
        _become_child(act, writing)
    os.close(writing)
    limit, messages = time.monotonic() + seconds, []
    for line in _lines(reading, limit):
        message = json.loads(line)
        if _CHILD in message:
            pids.append(message[_CHILD])
        else:
            messages.append(message)
    os.close(reading)
    hangs = time.monotonic() >= limit
    if hangs:
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1])
    end = "did not come to an end" if hangs else f"ended with {status}" if status else None
    return Told(messages=tuple(messages), end=end)


def fork_again(act: Act, say: Say) -> None:
    """Acts in a fork of a fork, and waits for it; ends this one as well when that did not end well."""
    pid = os.fork()
    if not pid:
        _exit_after(act, say)
    say({_CHILD: pid})
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        os._exit(status if status > 0 else 128 - status)  # as shells do


def _become_child(act: Act, writing: int) -> NoReturn:
    def say(message: dict[str, Any]) -> None:
        os.write(writing, f"{json.dumps(message)}\n".encode())

    gc.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a runtime prints is no answer
    _exit_after(act, say)


def _exit_after(act: Act, say: Say) -> NoReturn:
    code = 1
    try:
        act(say)
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)  # no destructors: they take longer than a measurement


def _lines(descriptor: int, limit: float) -> Iterator[str]:
    """Lines until the end of the file or the time limit."""
    rest = b""
    while (left := limit - time.monotonic()) > 0 and select.select([descriptor], [], [], left)[0]:
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines)
