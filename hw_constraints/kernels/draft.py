"""A kernel while a network is being split: with the values that it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bitwright.hw_constraints.kernels.coded_graph import Call
from bitwright.hw_constraints.kernels.kernel import Family, Kernel, Shape, Value


@dataclass(kw_only=True, eq=False)
class Draft:
    """What becomes a `Kernel`.

    Attributes:
        family: as there.
        op: as there.
        format: as there.
        reads: value, shape and whether through codes, by position.
        writes: value and shape of each result.
        weight: as there.
        epilogue: as there.
        attributes: as there.
        layout: as there.
        members: the operators that it stands for.
        writes_codes: whether its results are kept as codes.
        reads_stored_codes: whether its weights are codes that are converted in every run.
        inserted: how to name what stands for no operator.
    """

    family: Family
    op: str
    format: str
    reads: list[tuple[str, Shape, bool]]
    writes: list[tuple[str, Shape]]
    weight: Shape = ()
    epilogue: list[str] = field(default_factory=list)
    attributes: tuple[tuple[str, Value], ...] = ()
    layout: str = "plain"
    members: list[Call] = field(default_factory=list)
    writes_codes: bool = False
    reads_stored_codes: bool = False
    inserted: str = ""

    def take(self, follower: Call, reads: list[tuple[str, Shape, bool]]) -> None:
        """Fuses the operator that reads the result."""
        result = self.writes[0][0]
        through_codes = any(coded for value, _, coded in reads if value == result)
        self.reads += [read for read in reads if read[0] != result]
        self.writes = [(follower.outputs[0], self.writes[0][1])]
        self.members.append(follower)
        if follower.op != "BatchNormalization":
            self.epilogue.append(f"requantize+{follower.op.lower()}" if through_codes else follower.op.lower())

    def take_move(self, follower: Call, shape: Shape, attributes: dict[str, Value]) -> None:
        """Merges a view with the view behind it, or a transpose with the transpose behind it."""
        if self.op == "Transpose" == follower.op:
            first, second = (np.asarray(found["perm"], np.int64) for found in (dict(self.attributes), attributes))
            attributes["perm"] = tuple(int(axis) for axis in first[second])
        self.op = follower.op
        self.attributes = tuple(sorted(attributes.items()))
        self.writes = [(follower.outputs[0], shape)]
        self.members.append(follower)

    def take_silu(self, readers: list[Call], product: Call) -> None:
        """Fuses `x * sigmoid(x)` of the result."""
        self.writes = [(product.outputs[0], self.writes[0][1])]
        self.members += [reader for reader in readers if reader is not product] + [product]
        self.epilogue.append("silu")

    @property
    def adds(self) -> bool:
        """Whether an addition is fused already."""
        return any(op.endswith("add") for op in self.epilogue)

    @property
    def layers(self) -> list[str]:
        """Names of what it computes."""
        return [value for call in self.members for value in call.outputs] or [value for value, _ in self.writes]

    @property
    def replaces(self) -> list[str]:
        """The operators of the file."""
        return [f"{call.op}:{call.outputs[0]}" for call in self.members] or [self.inserted]

    def kernel(self) -> Kernel:
        """The finished description."""
        return Kernel(
            family=self.family,
            op=self.op,
            format=self.format,
            inputs=tuple(shape for _, shape, _ in self.reads),
            outputs=tuple(shape for _, shape in self.writes),
            weight=self.weight,
            epilogue=tuple(self.epilogue),
            attributes=self.attributes,
            layout=self.layout,
        )
