"""A draft as a network that patterns can search and rewrite: who makes a value, who reads it, what was one operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bitwright.quant.onnx_import.calls import Call, Draft
from bitwright.quant.onnx_import.origins import Origin, Origins
from bitwright.quant.onnx_import.values import Shape


@dataclass(kw_only=True, eq=False)
class Match:
    """What a pattern found: the call that stands for its last one, and the calls before it that fall away.

    `outputs` are the results where they are more than the last call's own.
    """

    op: str
    inputs: list[str | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    consumed: list[Call] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


class Network:
    """The calls of a draft with their wiring."""

    def __init__(self, draft: Draft, origins: Origins, outputs: Iterable[str]) -> None:
        self.draft = draft
        self.outputs = set(outputs)
        self.producers = {name: call for call in draft.calls for name in call.outputs}
        self.readers: dict[str, set[Call]] = {}
        self._origins = {call: origins.of(call.origin) for call in draft.calls}
        self._groups: dict[str, list[Call]] = {}
        for call in draft.calls:
            for name in call.operands:
                self.readers.setdefault(name, set()).add(call)
            self._groups.setdefault(self.origin(call).group, []).append(call)
        self._removed: set[Call] = set()

    def origin(self, call: Call) -> Origin:
        """Where a call comes from."""
        return self._origins[call]

    def shape(self, name: str) -> Shape:
        """The shape of a value."""
        return self.draft.values.types[name].shape

    def is_constant(self, name: str | None) -> bool:
        """Whether a value does not depend on the inputs."""
        return name is not None and self.draft.values.is_constant(name)

    def maker(self, name: str | None, *ops: str) -> Call | None:
        """The call of one of these operators that makes a value; None when another or none does."""
        call = self.producers.get(name) if name is not None else None
        return call if call is not None and (call.op in ops or not ops) else None

    def group(self, call: Call) -> list[Call]:
        """All calls that were one operator in the exported network; the call alone where nothing is known."""
        name = self.origin(call).group
        return [other for other in self._groups[name] if other not in self._removed] if name else [call]

    def may_be(self, call: Call, *ops: str) -> bool:
        """Whether nothing says that a call was another operator in the exported network."""
        return self.origin(call).op in ("", *ops)

    def may_replace(self, last: Call, match: Match) -> bool:
        """Whether nobody else wants what falls away: no reader outside, no result, no codes, no other operator."""
        gone = {*match.consumed, last}
        if any(name is not None and self.producers.get(name) in gone for name in match.inputs):
            return False  # it would read what it takes away
        for call in match.consumed:
            if self.origin(call).group != self.origin(last).group:
                return False
            for name in [name for name in call.outputs if name not in match.outputs]:
                if name in self.outputs or name in self.draft.qparams or not self.readers.get(name, set()) <= gone:
                    return False
        return True

    def replace(self, last: Call, match: Match) -> None:
        """Puts the match in place of the calls that it stands for."""
        for call in match.consumed:
            self.remove(call)
        for name in last.operands:
            self.readers[name].discard(last)
        last.op, last.inputs, last.attributes = match.op, list(match.inputs), match.attributes
        last.outputs = match.outputs or last.outputs
        for name in last.operands:
            self.readers.setdefault(name, set()).add(last)
        for name in last.outputs:
            self.producers[name] = last

    def is_present(self, call: Call) -> bool:
        """Whether a call was not taken out."""
        return call not in self._removed

    def remove(self, call: Call) -> None:
        """Takes a call out."""
        self._removed.add(call)
        for name in call.operands:
            self.readers[name].discard(call)
        for name in call.outputs:
            self.producers.pop(name, None)

    def drop_unused(self) -> None:
        """Takes out every call whose results nobody reads."""
        for call in reversed(self.draft.calls):
            if call not in self._removed and not any(
                self.readers.get(name) or name in self.outputs for name in call.outputs
            ):
                self.remove(call)

    @property
    def calls(self) -> list[Call]:
        """Those that are left."""
        return [call for call in self.draft.calls if call not in self._removed]
