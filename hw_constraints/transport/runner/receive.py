"""Receives files on the device; sent as source text in front of what it reads, since nothing else is there yet.

Reads one line of JSON from standard input and behind it, for `store`, a piece of a file. A piece is appended to
`store/NAME.part`; the whole is checked by its SHA-256 and only then renamed, so a file of its own name is always whole.
Two senders of one file write the same bytes to the same places.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
from typing import Any, BinaryIO, Dict

Answer = Dict[str, Any]

MARK = "bitwright-device "  # begins the line with the answer; what a login shell prints around it is skipped
PIECE = 1 << 20
OLDEST_PYTHON = (3, 8)


def look(store: str, request: Answer, _payload: BinaryIO) -> Answer:
    """Which of the files are there, and how many bytes of the others; a file that is not what its hash says goes."""
    whole, partial, removed = [], {}, []
    for name, sha256 in request["files"].items():
        path = os.path.join(store, name)
        if os.path.exists(path):
            if hash_of(path) == sha256:
                whole.append(name)
                continue
            os.remove(path)
            removed.append(name)
        if os.path.exists(path + ".part"):
            partial[name] = os.path.getsize(path + ".part")
    return {"state": "looked", "whole": whole, "partial": partial, "removed": removed}


def store_piece(store: str, request: Answer, payload: BinaryIO) -> Answer:
    """Appends a piece at its offset, and renames the file when it is whole and right."""
    path = os.path.join(store, request["name"])
    part, end = path + ".part", request["offset"]
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        file.seek(request["offset"])
        while end < request["size"]:
            piece = payload.read(min(PIECE, request["size"] - end))
            if not piece:
                break
            file.write(piece)
            end += len(piece)
        file.flush()
        os.fsync(file.fileno())
    if end < request["size"]:
        return {"state": "partial", "bytes": end}
    try:
        found = hash_of(part)
        if found != request["sha256"]:
            os.remove(part)
            return {"state": "refused", "kind": "wrong-hash", "message": f"its SHA-256 is there {found}"}
        os.replace(part, path)
    except FileNotFoundError:  # another sender of the same file was first
        if not os.path.exists(path):
            return {"state": "partial", "bytes": 0}
    return {"state": "stored"}


def hash_of(path: str) -> str:
    """The SHA-256 of a file."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(PIECE), b""):
            sha.update(piece)
    return sha.hexdigest()


def refused(error: OSError, folder: str, request: Answer) -> Answer:
    """What the system said, and how much room there is."""
    kind, message = "forbidden", f"{error.filename or folder}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = "full"
        place = folder
        while not os.path.exists(place):
            place = os.path.dirname(place)
        free = shutil.disk_usage(place).free
        part = os.path.join(folder, "store", request.get("name", "") + ".part")
        if os.path.isfile(part):  # it would keep the device full; nothing of it was whole
            os.remove(part)
        message = f"{free} bytes are free, {request.get('size', 0)} are needed"
    return {"state": "refused", "kind": kind, "message": message}


def main() -> None:
    """Answers one request."""
    payload = sys.stdin.buffer
    request = json.loads(payload.readline().decode("utf-8"))
    folder = os.path.abspath(os.path.expanduser(request["folder"]))
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:3]))
        answer: Answer = {"state": "refused", "kind": "old-python", "message": version}
    else:
        try:
            os.makedirs(os.path.join(folder, "store"), exist_ok=True)
            act = {"look": look, "store": store_piece}[request["action"]]
            answer = act(os.path.join(folder, "store"), request, payload)
        except OSError as error:
            answer = refused(error, folder, request)
    print(MARK + json.dumps(answer))


main()
