"""What a runtime fuses, computes in codes and keeps in which memory layout: data, found by `probe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitwright.hw_constraints.kernels.kernel import Family
from bitwright.quant.errors import InputError

# Memory layouts; `any` stands for whatever comes.
PLAIN, BLOCKED, CHANNELS_LAST = "plain", "blocked", "channels_last"
ANY, ANY_BUT_BLOCKED = "any", "any_but_blocked"


@dataclass(frozen=True, kw_only=True)
class FusionRules:
    """How a runtime turns a file into kernels.

    Keys `family/format` as in `pointwise/int8`; operators by ONNX's type in lower case.

    Attributes:
        runtime: the backend's name.
        version: of the runtime that was probed.
        epilogues: by family and format, what is fused behind: operators, `quantize` and `dequantize`; by
            `family+add` and format, what is fused behind a fused addition; by operator and format, what is fused
            behind it and not behind others of its family.
        composites: what is written as several operators and runs as one: `silu` for `x * sigmoid(x)`; with `/int8`
            behind it where that also holds for x in codes.
        in_codes: operators with kernels for codes of 8 bits; with `/mode` behind it where only that mode has one.
        quantizes_before: operators in front of which what quantizes their result is put; they then read codes.
        free: operators that cost nothing, as views do where buffers are shared.
        layouts: by family and format, the layout that a kernel insists on; `any` where it takes what comes; plain
            where nothing is said.
        bounds_left_to_codes: whether relu or clip vanishes where only codes are read that hold nothing beyond it.
        converts_weights_at_load: whether codes of weights that a real-valued kernel reads are converted only once.
        zero_points_matter: whether moving codes costs more when their zero point is not 0.
        vector: elements of a block of the blocked layout; channels below it are read as plain.
    """

    runtime: str
    version: str
    epilogues: Mapping[str, frozenset[str]]
    in_codes: frozenset[str]
    composites: frozenset[str] = frozenset()
    quantizes_before: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()
    layouts: Mapping[str, str] = field(default_factory=dict)
    bounds_left_to_codes: bool = False
    converts_weights_at_load: bool = True
    zero_points_matter: bool = False
    vector: int = 1
    blocked_multiple: int = 1

    def works_in_codes(self, op: str, mode: str = "") -> bool:
        """Whether an operator has a kernel for codes; of some only one of their modes has."""
        return op.lower() in self.in_codes or f"{op.lower()}/{mode}" in self.in_codes

    def fuses(self, family: Family, number_format: str, op: str, *, behind_add: bool = False) -> bool:
        """Whether `op` behind such a kernel, or behind the addition that ends it, becomes part of it."""
        key = f"{family}+add/{number_format}" if behind_add else f"{family}/{number_format}"
        return op in self.epilogues.get(key, frozenset())

    def layout(self, family: Family, op: str, number_format: str) -> str:
        """What a kernel wants its activations to be in: what is said of its operator counts before its family's."""
        of_family = self.layouts.get(f"{family}/{number_format}", PLAIN)
        return self.layouts.get(f"{op.lower()}/{number_format}", of_family)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "runtime": self.runtime,
            "version": self.version,
            "epilogues": {key: sorted(ops) for key, ops in sorted(self.epilogues.items())},
            "in_codes": sorted(self.in_codes),
            "composites": sorted(self.composites),
            "quantizes_before": sorted(self.quantizes_before),
            "free": sorted(self.free),
            "layouts": dict(sorted(self.layouts.items())),
            "bounds_left_to_codes": self.bounds_left_to_codes,
            "converts_weights_at_load": self.converts_weights_at_load,
            "zero_points_matter": self.zero_points_matter,
            "vector": self.vector,
            "blocked_multiple": self.blocked_multiple,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> FusionRules:
        """Reads what `to_json` wrote.

        Raises:
            InputError: something is missing, as in what an earlier version wrote.
        """
        try:
            return cls(
                runtime=record["runtime"],
                version=record["version"],
                epilogues={key: frozenset(ops) for key, ops in record["epilogues"].items()},
                in_codes=frozenset(record["in_codes"]),
                composites=frozenset(record["composites"]),
                quantizes_before=frozenset(record["quantizes_before"]),
                free=frozenset(record["free"]),
                layouts=dict(record["layouts"]),
                bounds_left_to_codes=record["bounds_left_to_codes"],
                converts_weights_at_load=record["converts_weights_at_load"],
                zero_points_matter=record["zero_points_matter"],
                vector=record["vector"],
                blocked_multiple=record["blocked_multiple"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"fusion rules without {error}: an earlier version wrote them; measure the table anew, or probe again"
            ) from error
