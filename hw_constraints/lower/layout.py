"""Fourth pass: in which order the elements of each tensor lie, and the copies that a change of order takes.

Operators with a window read and write images in the target's default layout; elementwise operators and moves along an
axis take what comes; everything else reads rows of features as they lie in the graph. Where a reader disagrees with
the writer a `relayout` is inserted, once for all readers. A view is free where it does not change the order of bytes,
and so is a permutation that only says what the layout does anyway (an `NHWC` image read as rows of channels).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bitwright.hw_constraints.lower.fuse import VIEWS
from bitwright.hw_constraints.lower.hardware import format_name
from bitwright.hw_constraints.lower.program import Block, Pass, Program, Reason
from bitwright.hw_constraints.lower.storage import PLAIN, Storage
from bitwright.hw_constraints.operators import POOLS, RESIZES
from bitwright.hw_constraints.placement import Place
from bitwright.hw_constraints.target_hardware import EngineKind
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.graph import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, Node, TensorInfo, TensorRef

IMAGES = (
    CONVOLUTIONS
    | TRANSPOSED_CONVOLUTIONS
    | POOLS
    | RESIZES
    | {"batch_norm", "instance_norm", "group_norm", "pixel_shuffle", "pixel_unshuffle", "grid_sampler_2d"}
)
# Their result depends on positions among rows of features; they read tensors as the graph has them.
_ROWS = frozenset(
    {
        *("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention", "permute", "transpose"),
        *("index", "gather", "embedding", "scatter", "index_put", "layer_norm", "rms_norm", "einsum", "t", "movedim"),
        *("lstm", "gru", "expand", "repeat", "unfold", "as_strided", "im2col", "col2im", "nms", "roi_align"),
    }
)
_PERMUTATIONS = frozenset({"permute", "transpose", "t", "movedim"})


def layout(program: Program) -> Program:
    """Decides every tensor's layout and inserts what changes it."""
    return _Layouts(program).run()


def storage_of(target: Target, layout_name: str, shape: tuple[int, ...], bits: int) -> Storage:
    """A tensor in a layout of the target."""
    described = target.layouts.get(layout_name)
    multiple = described.channel_multiple.get(format_name(bits), 1) if described else 1
    return Storage(layout=layout_name, shape=shape, bits=bits, channel_multiple=multiple)


class _Layouts:
    def __init__(self, program: Program) -> None:
        self.program, self.graph, self.target = program, program.graph, program.target
        default = self.target.default_layout
        self.image = default.name if default else PLAIN
        self.tensors = dict(self.graph.tensors)
        self.layouts: dict[TensorRef, str] = {}
        self.views: dict[TensorRef, TensorRef] = {}
        self.copies: dict[tuple[TensorRef, str], TensorRef] = {}
        self.blocks: list[Block] = []

    def run(self) -> Program:
        if self.image != PLAIN:
            self._inputs()
        for block in self.program.blocks:
            if block.op in VIEWS and block.reads:
                self._view(block)
            elif self.image == PLAIN:
                self.blocks.append(block)
            else:
                self._place(block)
        graph = replace(self.graph, tensors=self.tensors)
        return replace(
            self.program,
            graph=graph,
            blocks=tuple(self.blocks),
            views=self.views,
            layouts=self.layouts,
            copies={copy: ref for (ref, _), copy in self.copies.items()},
        )

    def _inputs(self) -> None:
        """Whoever calls the network hands over images as their first reader wants them."""
        for ref in (*self.graph.inputs, *(before for before, _ in self.graph.state)):
            readers = self.graph.consumers[ref]
            if readers and all(node.op in IMAGES for node in readers) and len(self.tensors[ref].shape) >= 3:
                self.layouts[ref] = self.image

    def _of(self, ref: TensorRef) -> str:
        return self.layouts.get(ref, PLAIN)

    def _storage(self, ref: TensorRef, layout_name: str) -> Storage:
        shape = tuple(size or 0 for size in self.tensors[ref].shape)
        return storage_of(self.target, layout_name, shape, self.program.bits(ref))

    def _view(self, block: Block) -> None:
        source, result = block.reads[0], block.writes[0]
        if self._of(source) != PLAIN and not _is_row_by_row(self._storage(source, self._of(source))):
            source = self._copy(source, PLAIN, block)
        self.views[result] = source

    def _place(self, block: Block) -> None:
        if block.op in _PERMUTATIONS and self._already_permuted(block):
            return
        wanted = self._wanted(block)
        renamed = {}
        for ref in block.reads:
            rank = len(self.tensors[ref].shape)
            if rank >= 3 and self._of(ref) != wanted:
                renamed[ref] = self._copy(ref, wanted, block)
        for ref in block.writes:
            if wanted != PLAIN and len(self.tensors[ref].shape) >= 3:
                self.layouts[ref] = wanted
        self.blocks.append(_renamed(block, renamed) if renamed else block)

    def _wanted(self, block: Block) -> str:
        if any(node.op in IMAGES for node in block.nodes):
            return self.image
        ranks = {len(self.tensors[ref].shape) for ref in (*block.reads, *block.writes)}
        if block.op in _ROWS or len(ranks) > 1 or min(ranks, default=0) < 3:
            return PLAIN
        # What most bytes are in already.
        bytes_in: dict[str, int] = {}
        for ref in block.reads:
            bytes_in[self._of(ref)] = bytes_in.get(self._of(ref), 0) + self.tensors[ref].elements
        return max(bytes_in, key=lambda name: (bytes_in[name], name != PLAIN), default=PLAIN)

    def _already_permuted(self, block: Block) -> bool:
        """Whether the permutation moves no byte: channels last in memory, and now in the tensor's dimensions, too."""
        source, result = block.reads[0], block.writes[0]
        storage = self._storage(source, self._of(source))
        shape = tuple(size or 0 for size in self.tensors[result].shape)
        rank = len(storage.shape)
        order = permutation(block.nodes[0], rank)
        last = (0, *range(2, rank), 1)
        if storage.layout != PLAIN and storage.stored_shape == shape and order == last:
            self.views[result] = source
            return True
        back = (0, rank - 1, *range(1, rank - 1))
        packed = self._storage(result, self.image)
        readers = self.graph.consumers[result]
        same_bytes = storage.layout == PLAIN and rank >= 3 and packed.stored_shape == storage.shape
        if same_bytes and order == back and readers and all(node.op in IMAGES for node in readers):
            self.views[result] = source
            self.layouts[result] = self.image
            return True
        return False

    def _copy(self, ref: TensorRef, wanted: str, reader: Block) -> TensorRef:
        if (ref, wanted) in self.copies:
            return self.copies[ref, wanted]
        copy = replace(ref, module_path=f"{ref.module_path}#{wanted}")
        info = self.tensors[ref]
        self.tensors[copy] = TensorInfo(ref=copy, shape=info.shape, dtype=info.dtype, kind=info.kind)
        self.copies[ref, wanted] = copy
        if wanted != PLAIN:
            self.layouts[copy] = wanted
        text = f"{reader.op} {reader.name!r} reads {wanted}, {ref} lies in {self._of(ref)}"
        self.blocks.append(
            Block(
                name=f"relayout {copy}",
                nodes=(),
                reads=(ref,),
                constants=(),
                writes=(copy,),
                engine=self._engine(reader),
                place=reader.place if reader.place is Place.HOST else Place.MOVED,
                partition=reader.partition,
                reasons=(Reason(Pass.LAYOUT, text),),
            )
        )
        return copy

    def _engine(self, reader: Block) -> str:
        named = [each.engine for each in self.target.reformats.values() if each.engine]
        usable = [name for name in named if self.target.engines[name].kind is not EngineKind.HOST]
        return usable[0] if usable and reader.on_accelerator else reader.engine


def permutation(node: Node, rank: int) -> tuple[int, ...]:
    """Which dimension of the operand each dimension of a permutation's result is."""
    attributes = node.attributes
    if node.op == "permute":
        return tuple(axis % rank for axis in attributes["dims"])
    order = list(range(rank))
    if node.op in ("transpose", "t"):
        first, second = (attributes.get("dim0", 0) % rank, attributes.get("dim1", -1) % rank)
        order[first], order[second] = order[second], order[first]
        return tuple(order)
    given, wanted = attributes["source"], attributes["destination"]
    moved = [axis % rank for axis in (given if isinstance(given, list | tuple) else [given])]
    places = [axis % rank for axis in (wanted if isinstance(wanted, list | tuple) else [wanted])]
    left = iter(axis for axis in range(rank) if axis not in moved)
    by_place = dict(zip(places, moved, strict=True))
    return tuple(by_place[axis] if axis in by_place else next(left) for axis in range(rank))


def _is_row_by_row(storage: Storage) -> bool:
    """Whether the bytes are those of the plain tensor: at most one channel, or at most one position; no padding."""
    if storage.bytes != Storage(layout=PLAIN, shape=storage.shape, bits=storage.bits).bytes:
        return False
    positions = 1
    for size in storage.shape[2:]:
        positions *= size
    return storage.shape[1] == 1 or positions == 1


def _renamed(block: Block, names: Mapping[TensorRef, TensorRef]) -> Block:
    nodes = tuple(
        replace(node, inputs=tuple(names.get(ref, ref) if ref is not None else None for ref in node.inputs))
        for node in block.nodes
    )
    return replace(block, nodes=nodes, reads=tuple(dict.fromkeys(names.get(ref, ref) for ref in block.reads)))
