from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph, TensorRef


def cameras(*, shared: bool = True, order: tuple[int, ...] = (0, 1, 2), axis: int = 1) -> Graph:
    b = GraphBuilder()
    images = b.input(2, 3, 4, 16, 16)
    weights = [b.parameter(8, 4, 3, 3) for _ in order]
    steps: list[TensorRef] = []
    for step, camera in enumerate(order):
        part = b.call("select", images, shape=(2, 4, 16, 16), dim=1, index=camera)
        weight = weights[0 if shared else step]
        made = b.call("conv2d", part, weight, None, shape=(2, 8, 14, 14), stride=(1, 1), padding=(0, 0))
        steps.append(b.call("relu", made, shape=(2, 8, 14, 14)))
    shape = (2, 3, 8, 14, 14) if axis == 1 else (3, 2, 8, 14, 14)
    return b.graph(b.call("stack", *steps, shape=shape, dim=axis, line="y = torch.stack(y, 1)"))


def pointwise() -> Graph:
    b = GraphBuilder()
    x = b.input(2, 2, 8)
    parts = [b.call("relu", b.call("select", x, shape=(2, 8), dim=1, index=i), shape=(2, 8)) for i in range(2)]
    return b.graph(b.call("stack", *parts, shape=(2, 2, 8), dim=1))


BAD = [
    RuleCase(name="cameras", target="x86-vnni", graph=cameras(), lines=(10,), says="3 steps run the same 2 operators"),
    RuleCase(name="on-an-npu", target="ethos-u85-1024", graph=cameras(), lines=(10,), says="into the batch"),
]
GOOD = [
    RuleCase(name="weights-of-their-own", target="x86-vnni", graph=cameras(shared=False)),
    RuleCase(name="another-order", target="x86-vnni", graph=cameras(order=(0, 2, 1))),
    RuleCase(name="another-axis", target="x86-vnni", graph=cameras(axis=0)),
    RuleCase(name="no-layers", target="x86-vnni", graph=pointwise()),
]
