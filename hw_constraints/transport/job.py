"""One measurement to be made on a device, with a name that says what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bitwright.hw_constraints.transport.content import Content
from bitwright.quant.errors import InputError

_ID_DIGITS = 32  # of 64: 128 bits


@dataclass(frozen=True, kw_only=True)
class Job:
    """Artefacts to time against each other on one runtime.

    Attributes:
        artefacts: by candidate; the first is the reference of the ratios.
        runtime: the runner's name of it.
        inputs: by candidate, an `.npz` each; standard normal numbers when not given.
        threads: of the runtime.
        seed: of made-up inputs and of the order within rounds.
        min_rounds: see `measure.interleave`.
        max_seconds: see `measure.interleave`.
        target_half_width: see `measure.interleave`.
        nonce: of the list that the job is on: a new list measures again, one that is taken up does not.
        lock_wait_s: seconds to wait for others on the device; does not name the job.
        cool_s: seconds to wait for the device to cool, all in all; does not name the job.
    """

    artefacts: Mapping[str, Content]
    runtime: str
    inputs: Mapping[str, Content] = field(default_factory=dict)
    threads: int = 1
    seed: int = 0
    min_rounds: int = 20
    max_seconds: float = 30.0
    target_half_width: float = 0.01
    nonce: str = ""
    lock_wait_s: float = 600.0
    cool_s: float = 120.0

    def __post_init__(self) -> None:
        if not self.artefacts:
            raise InputError("nothing to measure: give at least one artefact")
        unknown = sorted(set(self.inputs) - set(self.artefacts))
        if unknown:
            raise InputError(f"inputs for {unknown}; the candidates are {sorted(self.artefacts)}")

    @cached_property
    def id(self) -> str:
        """The hash of artefacts, settings and nonce."""
        named = self._settings() | {"artefacts": list(self._artefacts().items()), "nonce": self.nonce}
        text = json.dumps(named, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]

    @property
    def contents(self) -> tuple[Content, ...]:
        """What has to be on the device."""
        return (*self.artefacts.values(), *self.inputs.values())

    def to_request(self, lock: str = "") -> dict[str, Any]:
        """What the runner is told.

        Args:
            lock: the device's lock file, when it is not the usual one.
        """
        waits = {"lock_wait_s": self.lock_wait_s, "cool_s": self.cool_s, "lock": lock}
        return {"id": self.id, "artefacts": self._artefacts(), **self._settings(), **waits}

    def _artefacts(self) -> dict[str, dict[str, str]]:
        return _on_device(self.artefacts)

    def _settings(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime,
            "inputs": _on_device(self.inputs),
            "threads": self.threads,
            "seed": self.seed,
            "min_rounds": self.min_rounds,
            "max_seconds": self.max_seconds,
            "target_half_width": self.target_half_width,
        }


def _on_device(contents: Mapping[str, Content]) -> dict[str, dict[str, str]]:
    return {name: {"file": each.name, "sha256": each.sha256} for name, each in contents.items()}
