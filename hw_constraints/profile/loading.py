"""What a request of a profile is about: a loaded file and a batch for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bitwright.hw_constraints.backends import Arrays, Session, get_backend
from bitwright.hw_constraints.measure.made_up import made_up_inputs
from bitwright.hw_constraints.measure.process import now_at


def loaded(request: dict[str, Any], *, threads: int) -> tuple[Session, Arrays]:
    """The session, and the batch that the request names or one that is made up.

    Raises:
        InputError: the runtime does not take the file, or an input cannot be made up.
    """
    now_at(request["name"], request["runtime"])
    session = get_backend(request["runtime"]).load(Path(request["file"]), threads=threads)
    if not request.get("inputs"):
        return session, made_up_inputs(session, request["name"], 0)
    with np.load(request["inputs"]) as stored:
        return session, {name: stored[name] for name in stored.files}
