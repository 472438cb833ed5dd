"""Why a device does not measure."""

from __future__ import annotations


class Refusal(Exception):
    """A reason; `kind` tells the machine at the other end what to make of it.

    Attributes:
        kind: `rejected`, `lacks-runtime`, `busy`, `full`, `wrong-hash`, `unusable`.
        message: in words, with the runtime's own.
        final: whether the same job would be refused again, so that the refusal is kept like a result.
    """

    def __init__(self, kind: str, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.kind, self.message, self.final = kind, message, final

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {"state": "refused", "kind": self.kind, "message": self.message, "final": self.final}
