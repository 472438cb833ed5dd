"""The record of a search: one JSON document a line, and the search's memory when it is started again.

A search asks questions (how fast are these, how accurate is that) and decides by the answers alone. So a search that
was stopped is run again from the start, and gets the answers that it had from its record at no cost.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bitwright.quant.errors import InputError

FORMAT = "bitwright-autotune/1"
Document = dict[str, Any]


class OtherSearchError(InputError):
    """The record is of another search."""


class Journal:
    """A file of answers; each is on disk before it is used.

    Attributes:
        path: the file.
        seconds: what all answers took, those of earlier processes included.
        recalled: how many answers came from the file.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Opens a record, or begins one.

        Args:
            path: the file; its folder is made.
            header: what the answers hang on: network, data, runtime, machine.

        Raises:
            InputError: the file is no such record.
            OtherSearchError: it is one of something else.
        """
        self.path = path
        self.seconds = 0.0
        self.recalled = 0
        self._answers: dict[str, Document] = {}
        self._notes: set[str] = set()
        begin = {"format": FORMAT, **header}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = list(_read(path)) if path.is_file() else []
        if not lines:
            self._append(begin)
        for number, line in enumerate(lines, start=1):
            self._take(line, number, begin)

    def _take(self, line: Document, number: int, begin: Document) -> None:
        if number == 1:
            differs = [key for key in {*line, *begin} if line.get(key) != begin.get(key)]
            if "format" in differs:
                raise InputError(f"{self.path}: not a record of autotune; delete it or choose another --out")
            if differs:
                key = min(differs)
                raise OtherSearchError(
                    f"{self.path}: is the record of another search ({key} = {line.get(key)!r}, "
                    f"now {begin.get(key)!r}); delete it or choose another --out"
                )
        elif "question" in line:
            self._answers[_key(line["question"])] = line["answer"]
            self.seconds += line["seconds"]
        else:
            self._notes.add(_key(line))

    def ask(self, question: Document, find: Callable[[], Document]) -> Document:
        """The answer to a question: the recorded one, else `find`'s, which is recorded."""
        key = _key(question)
        if key in self._answers:
            self.recalled += 1
            return self._answers[key]
        began = time.monotonic()
        answer: Document = json.loads(json.dumps(find()))  # as it will be read back
        seconds = time.monotonic() - began
        self._append({"question": question, "answer": answer, "seconds": round(seconds, 3)})
        self._answers[key] = answer
        self.seconds += seconds
        return answer

    def knows(self, question: Document) -> bool:
        """Whether a question has been answered."""
        return _key(question) in self._answers

    def note(self, document: Document) -> None:
        """Writes a line for readers, once."""
        if _key(document) not in self._notes:
            self._notes.add(_key(document))
            self._append(document)

    def _append(self, document: Document) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(document).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _key(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True)


def _read(path: Path) -> Iterator[Document]:
    """The whole lines of a record; what a killed process left of its last line is cut off."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            document = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not a record of autotune ({error}); delete it") from error
        if not isinstance(document, dict):
            raise InputError(f"{path}:{number}: not a record of autotune; delete it")
        yield document
