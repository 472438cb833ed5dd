"""The forms of a network between the passes of the lowering, each frozen, each with the reasons for what was decided.

    Graph ─ decompose ─► Graph ─ fuse ─► Program ─ partition ─► Program ─ layout ─► Program
          ─ place ─► Residency ─ tile ─► LoweredOps ─ schedule ─► LoweredOps ─ allocate ─► LoweredGraph

A `Block` is what runs as one; a `LoweredOp` is a block whose loops are cut into tiles and whose operands have
addresses. Everything joins on `TensorRef` and on the nodes' source lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from bitwright.hw_constraints.lower.storage import Storage
from bitwright.hw_constraints.lower.tile import Tiling
from bitwright.hw_constraints.lower.work import Work, WorkKind
from bitwright.hw_constraints.placement import Place
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph, Node, SourceLine, TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.scheme import QParamsSpec
from bitwright.quant.stored_size import element_bits, stored_bits


class Pass(StrEnum):
    """The passes, in order."""

    DECOMPOSE = "decompose"
    FUSE = "fuse"
    PARTITION = "partition"
    LAYOUT = "layout"
    PLACE = "place"
    TILE = "tile"
    SCHEDULE = "schedule"
    ALLOCATE = "allocate"


@dataclass(frozen=True)
class Reason:
    """Why a pass did what it did to one operation."""

    by: Pass
    text: str

    def __str__(self) -> str:
        return f"{self.by}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Block:
    """Operator calls that run as one.

    Attributes:
        name: of its first node; of a change of layout, the tensor's.
        nodes: the anchor first, then what is fused behind it; none for a change of layout.
        reads: the computed tensors that it reads from memory, views seen through.
        constants: the parameters, buffers and constants that it reads.
        writes: the tensors that it writes.
        engine: which of the target's engines; "" until it is known, and where none takes it.
        place: in low precision or in float on the accelerator, or on which other side.
        partition: the number of the stretch of the program that runs on one side without a break.
        reasons: why it is as it is.
    """

    name: str
    nodes: tuple[Node, ...]
    reads: tuple[TensorRef, ...]
    constants: tuple[TensorRef, ...]
    writes: tuple[TensorRef, ...]
    engine: str = ""
    place: Place = Place.LOW
    partition: int = 0
    reasons: tuple[Reason, ...] = ()

    @property
    def op(self) -> str:
        """The anchor's operator type; `relayout` for a change of layout."""
        return self.nodes[0].op if self.nodes else "relayout"

    @property
    def source(self) -> SourceLine | None:
        """The user's line."""
        return self.nodes[0].source if self.nodes else None

    @property
    def module_path(self) -> str:
        """The module that made the call."""
        return self.nodes[0].module_path if self.nodes else ""

    @property
    def on_accelerator(self) -> bool:
        """Whether one of the target's own engines runs it."""
        return self.place not in (Place.HOST, Place.REFUSED)

    def because(self, by: Pass, text: str) -> Block:
        """The same with one more reason."""
        return replace(self, reasons=(*self.reasons, Reason(by, text)))


@dataclass(frozen=True, kw_only=True)
class Program:
    """A network as blocks in the order in which they run.

    Attributes:
        graph: the network, operators taken apart as the target does.
        target: where it is to run.
        plan: which tensor is in which format.
        blocks: what runs, in order.
        views: tensors that are others under another shape; `stored` sees through them.
        known: results that are computed before the network runs.
        layouts: the names of the tensors' layouts; plain where nothing is said.
        copies: tensors that are others in another layout.
    """

    graph: Graph
    target: Target
    plan: QuantPlan
    blocks: tuple[Block, ...]
    views: Mapping[TensorRef, TensorRef] = field(default_factory=dict)
    known: frozenset[TensorRef] = frozenset()
    layouts: Mapping[TensorRef, str] = field(default_factory=dict)
    copies: Mapping[TensorRef, TensorRef] = field(default_factory=dict)

    def stored(self, ref: TensorRef) -> TensorRef:
        """The tensor whose bytes these are."""
        while ref in self.views:
            ref = self.views[ref]
        return ref

    def bits(self, ref: TensorRef) -> int:
        """Bits of one element: by the plan, else by the type in the graph; a view or a copy has those of its origin."""
        origin, spec = self._coded(ref)
        return element_bits(self.graph.tensors[origin].dtype, spec)

    def _coded(self, ref: TensorRef) -> tuple[TensorRef, QParamsSpec | None]:
        """The tensor that a view or a copy comes from, and how it is coded."""
        while ref in self.views or ref in self.copies:
            ref = self.views[ref] if ref in self.views else self.copies[ref]
        return ref, self.plan.activations.get(ref) or self.plan.weights.get(ref)

    @property
    def alignment_bytes(self) -> int:
        """What addresses are multiples of: what the layouts ask for, and the widest element."""
        return max([8, *(each.alignment_bytes for each in self.target.layouts.values())])

    def bytes_of(self, ref: TensorRef) -> int:
        """Bytes of a tensor's elements and of the scales of its blocks, without padding."""
        origin, spec = self._coded(ref)
        return -(-stored_bits(self.graph, origin, self.bits(origin), spec) // 8)

    def __str__(self) -> str:
        return "\n".join(
            f"{block.name}: {' + '.join(node.op for node in block.nodes) or 'relayout'}"
            f" on {block.engine or block.place} [{block.partition}]"
            + "".join(f"\n    {reason}" for reason in block.reasons)
            for block in self.blocks
        )


class Role(StrEnum):
    """What a staged operand is for the operation."""

    INPUT = "input"
    WEIGHTS = "weights"
    OUTPUT = "output"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A buffer beside the engine through which tiles of one operand pass.

    Attributes:
        role: which operand.
        ref: the tensor; of weights the first one.
        bytes: of one tile.
        copies: 2 where the next tile arrives while this one is used.
    """

    role: Role
    ref: TensorRef
    bytes: int
    copies: int


@dataclass(frozen=True, kw_only=True)
class LoweredOp:
    """A block with its loops cut into tiles, and a place for each operand.

    Attributes:
        block: what runs.
        work: its loop nest; None where it has none that is known (an operator outside the vocabulary).
        tiling: how the nest is cut; None for what runs in one piece.
        stages: the buffers that its tiles pass through.
        traffic: bytes read from and written to each memory off the engine's own buffers, tiles read again included.
        prefetched: the bytes of weights that arrive while the operation before it runs.
        reasons: of all passes.
    """

    block: Block
    work: Work | None
    tiling: Tiling | None = None
    stages: tuple[Stage, ...] = ()
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    prefetched: int = 0
    reasons: tuple[Reason, ...] = ()

    @property
    def name(self) -> str:
        """Unique in the program."""
        return self.block.name

    @property
    def kind(self) -> WorkKind | None:
        """Of the loop nest."""
        return self.work.kind if self.work else None

    def because(self, by: Pass, text: str) -> LoweredOp:
        """The same with one more reason."""
        return replace(self, reasons=(*self.reasons, Reason(by, text)))


@dataclass(frozen=True)
class Traffic:
    """Bytes that one operation moves to and from one memory."""

    read: int = 0
    written: int = 0

    @property
    def total(self) -> int:
        """Both ways."""
        return self.read + self.written


@dataclass(frozen=True)
class Address:
    """Where bytes lie, and from when to when.

    Attributes:
        memory: its name.
        offset: the first byte.
        bytes: how many.
        first: the position of the operation that writes it first; -1 before the program.
        last: the position of the last operation that needs it.
    """

    memory: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Every buffer's address.

    Attributes:
        tensors: of computed tensors and inputs, each with the way its elements lie there.
        constants: of weights and other constants.
        stages: of the tiles' buffers, by operation and position in `LoweredOp.stages`.
        peak_bytes: of each memory, what the program computes or stages; constants not included.
        constant_bytes: of each memory, what lies there before the program starts.
        spilled: tensors that would rather lie beside the engine, and why they do not.
    """

    tensors: Mapping[TensorRef, tuple[Address, Storage]]
    constants: Mapping[TensorRef, Address]
    stages: Mapping[tuple[str, int], Address]
    peak_bytes: Mapping[str, int]
    constant_bytes: Mapping[str, int]
    spilled: Mapping[TensorRef, str]


@dataclass(frozen=True, kw_only=True)
class LoweredGraph:
    """The program that would run.

    Attributes:
        program: the blocks with their layouts, and the network that they came from.
        ops: the same blocks, cut and placed, in the order in which they run.
        memory: every buffer's address.
    """

    program: Program
    ops: tuple[LoweredOp, ...]
    memory: MemoryPlan

    @property
    def target(self) -> Target:
        """Where it is to run."""
        return self.program.target

    @cached_property
    def by_name(self) -> dict[str, LoweredOp]:
        """Operations by name."""
        return {op.name: op for op in self.ops}

    @cached_property
    def partitions(self) -> tuple[tuple[LoweredOp, ...], ...]:
        """The stretches that run on one side without a break, in order."""
        groups: dict[int, list[LoweredOp]] = {}
        for op in self.ops:
            groups.setdefault(op.block.partition, []).append(op)
        return tuple(tuple(groups[number]) for number in sorted(groups))

    def find(self, name: str) -> LoweredOp:
        """The operation of that name, or of that module, or that a node of that name is fused into.

        Raises:
            InputError: none, or more than one; the message lists what there is.
        """
        found = list(dict.fromkeys(op.name for op in self._matching(name)))
        if len(found) == 1:
            return self.by_name[found[0]]
        if not found:
            raise InputError(f"layer {name!r}: no such layer; there are: {', '.join(self.by_name)}")
        places = "".join(f"\n  {each}" + self._where(self.by_name[each]) for each in found)
        raise InputError(f"layer {name!r}: {len(found)} operations match; name one of them:{places}")

    def _where(self, op: LoweredOp) -> str:
        """What an operation does, and at which of the user's lines."""
        block = op.block
        does = " -> ".join(node.op for node in block.nodes) or "relayout"
        return f": {does}" + (f" at {block.source}: {block.source.text}".rstrip(": ") if block.source else "")

    def _matching(self, name: str) -> Iterator[LoweredOp]:
        if name in self.by_name:
            yield self.by_name[name]
            return
        for op in self.ops:
            names = {node.name for node in op.block.nodes} | {node.module_path for node in op.block.nodes}
            if name in names:
                yield op
