from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph

SHUFFLE = (1, 2, 8, 16, 16)


def shuffle(shape: tuple[int, ...] = SHUFFLE) -> Graph:
    b = GraphBuilder()
    swapped = (shape[0], shape[2], shape[1], *shape[3:])
    return b.graph(b.call("transpose", b.input(*shape), shape=swapped, dim0=1, dim1=2, line="x = x.transpose(1, 2)"))


def windows() -> Graph:
    b = GraphBuilder()
    order = (0, 1, 3, 2, 4, 5)
    return b.graph(b.call("permute", b.input(1, 2, 4, 2, 4, 8), shape=(1, 2, 2, 4, 4, 8), dims=order))


def image() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("permute", b.input(1, 8, 16, 16), shape=(1, 16, 16, 8), dims=(0, 2, 3, 1)))


BAD = [
    RuleCase(name="channel-shuffle", target="edge-tpu", graph=shuffle(), lines=(1,), says="3 would do"),
    RuleCase(name="windows", target="ethos-u85-1024", graph=windows(), lines=(1,), says="4 would do"),
]
GOOD = [
    RuleCase(name="image", target="edge-tpu", graph=image()),
    RuleCase(name="axes-of-one", target="edge-tpu", graph=shuffle((1, 1, 8, 16, 16))),
    RuleCase(name="processor", target="x86-vnni", graph=shuffle()),
]
