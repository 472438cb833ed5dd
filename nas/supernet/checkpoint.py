"""Shared weights on disk, in the middle of their training and after it; whole at any moment, and only their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bitwright.nas.elastic import Elastic
from bitwright.nas.space import definition
from bitwright.nas.supernet.settings import SupernetSettings
from bitwright.nas.supernet.task import Task
from bitwright.qat.checkpoint import read_whole, write_whole
from bitwright.quant.errors import InputError

FORMAT = "bitwright-supernet/1"
FILE = "supernet.pt"
_SAVED_ONLY = ("checkpoint_every", "calibration")  # decide no weight

Identity = dict[str, str]


def identity_of(elastic: Elastic, task: Task, settings: SupernetSettings) -> Identity:
    """What weights follow from, by name, as JSON: settings, choices, data, shapes of tensors."""
    parts = {f"supernet.{name}": value for name, value in asdict(settings).items() if name not in _SAVED_ONLY}
    parts |= {f"search space: {name}": choices for name, choices in definition(elastic.space).items()}
    parts |= {f"task: {name}": value for name, value in task.fingerprint.items()}
    parts |= {f"tensor {name}": list(each.shape) for name, each in elastic.largest.state_dict().items()}
    return {name: json.dumps(value, sort_keys=True) for name, value in parts.items()}


def write_supernet(path: Path, *, identity: Identity, step: int, steps: int, content: Mapping[str, Any]) -> None:
    """Replaces the file at once."""
    write_whole(path, {"format": FORMAT, "identity": identity, "step": step, "steps": steps, **content})


def read_supernet(path: Path, identity: Identity) -> dict[str, Any]:
    """The file's content, of a training of the same identity.

    Raises:
        InputError: there is none, it is damaged, or it is of another training: names what differs.
    """
    content = read_whole(path, kind=FORMAT, writer="train_supernet")
    saved = content["identity"]
    for name in [*identity, *saved]:
        if saved.get(name) != identity.get(name):
            raise InputError(
                f"{path}: {name} was {saved.get(name, 'not there')} and is {identity.get(name, 'not there')}; "
                "give another folder, or remove the file to train anew"
            )
    return content


def load_supernet(elastic: Elastic, path: Path) -> None:
    """Puts trained weights into `elastic.largest`.

    Raises:
        InputError: there is no such file, its training has not ended, or it is of another network.
    """
    content = read_whole(path, kind=FORMAT, writer="train_supernet")
    if content["step"] < content["steps"]:
        raise InputError(
            f"{path}: trained for {content['step']} of {content['steps']} steps; train it to the end first"
        )
    try:
        elastic.largest.load_state_dict(content["weights"])
    except RuntimeError as error:
        raise InputError(f"{path}: of another network: {' '.join(str(error).split())}") from None
